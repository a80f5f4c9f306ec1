"""A backbone that answers from a policy: for tests, oracles and demonstrations without a model.

Invariant: it keeps the whole `Backbone` contract (token ids that decode to the text, one log-probability per id, the
end token last, the cut at `max_new_tokens`, choices), so that whatever runs on it runs on a model.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence

from jade_graph.backbones.watching import Watching
from jade_graph.errors import BackboneError
from jade_graph.types import Ask, Completion, FinishReason, Message, Sampling, Watch

EOS = 0
"""The end token: no bytes."""

_BYTES = 3  # a token's worth: near what subword tokens hold, so that the roles' token limits mean the same here

Policy = Callable[[Ask], "str | Exception"]


class ScriptedBackbone:
    """Answers every request with `policy(ask)`. Tokens are three UTF-8 bytes each, then `EOS`.

    Args:
        policy: gives the action's text; or returns an exception, which `generate` then raises as it is.
        version: recorded on every completion.
        profile: which prompts the roles render.
        latency_s: seconds to wait before each answer.
        token_s: seconds between two tokens of an answer that is watched.
        max_context: prompt plus action, in tokens.
    """

    continues = False  # it answers the role, not the prompt: a prompt with half an answer gets the whole one again
    streams = True

    def __init__(
        self,
        policy: Policy,
        *,
        version: str = "scripted",
        profile: str = "compact",
        latency_s: float = 0.0,
        token_s: float = 0.0,
        max_context: int = 1_000_000,
    ) -> None:
        self._policy = policy
        self._version = version
        self._profile = profile
        self._latency_s = latency_s
        self._token_s = token_s
        self._max_context = max_context
        self._closed = False

    @property
    def version(self) -> str:
        return self._version

    @property
    def profile(self) -> str:
        return self._profile

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def eos_token_id(self) -> int:
        return EOS

    def encode(self, messages: Sequence[Message]) -> list[int]:
        if self._profile != "chat":
            return self.encode_text("".join(message.content for message in messages))
        return self.encode_text("".join(f"{message.role}: {message.content}\n" for message in messages))

    def encode_text(self, text: str) -> list[int]:
        data = text.encode("utf-8", errors="replace")
        chunks = (data[i : i + _BYTES] for i in range(0, len(data), _BYTES))
        return [len(chunk) << 24 | int.from_bytes(chunk, "big") for chunk in chunks]

    def decode(self, token_ids: Sequence[int]) -> str:
        chunks = ((token & 0xFFFFFF).to_bytes(token >> 24, "big") for token in token_ids)
        return b"".join(chunks).decode("utf-8", errors="replace")

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        sampling: Sampling,
        *,
        hint: Ask | None = None,
        watch: Watch | None = None,
    ) -> Completion:
        """The policy's answer to `hint`, with log-probabilities 0 and finish reason "scripted" (or "length").

        Raises:
            BackboneError: BACKBONE_NO_HINT, BACKBONE_POLICY (the policy raised), BACKBONE_CHOICES (its answer is none
                of `sampling.choices`), CONTEXT_OVERFLOW, BACKBONE_CLOSED.
        """
        if self._closed:
            raise BackboneError("this backbone is closed.", code="BACKBONE_CLOSED", hint="make another one")
        if hint is None:
            raise BackboneError(
                f"the scripted backbone {self._version!r} answers from the role behind a prompt, and none was named.",
                code="BACKBONE_NO_HINT",
                hint='generate(ids, sampling, hint=Ask(role="AG", view=view))',
            )
        if len(prompt_token_ids) + sampling.max_new_tokens > self._max_context:
            raise BackboneError(
                f"a prompt of {len(prompt_token_ids)} tokens and {sampling.max_new_tokens} new ones exceed the "
                f"context of {self._max_context}.",
                code="CONTEXT_OVERFLOW",
                hint="fewer or shorter documents",
            )
        await asyncio.sleep(self._latency_s)
        ids = [*self.encode_text(self._answer(hint)), EOS] if sampling.forced is None else list(sampling.forced)
        if sampling.choices is not None and tuple(ids) not in sampling.choices:
            raise BackboneError(
                f"the policy's answer {self.decode(ids)!r} is none of the choices.",
                code="BACKBONE_CHOICES",
                known=[self.decode(choice) for choice in sampling.choices],
            )
        finish: FinishReason = "scripted"
        if len(ids) > sampling.max_new_tokens:
            ids, finish = ids[: sampling.max_new_tokens], "length"
        done = Completion(self.decode(ids), tuple(ids), (0.0,) * len(ids), finish, self._version)
        if watch is not None:
            await self._tell(watch, done)
        return done

    async def _tell(self, watch: Watch, done: Completion) -> None:
        """The answer token by token, others having their turn between two, as a model would."""
        with Watching(watch, self.decode) as watching:
            for place, token in enumerate(done.token_ids):
                watching.add(place, token)
                watching.tell()
                await asyncio.sleep(self._token_s)
            watching.end(done.text)

    def _answer(self, hint: Ask) -> str:
        try:
            answer = self._policy(hint)
        except Exception as error:
            raise BackboneError(
                f"the policy of {self._version!r} failed on role {hint.role!r}: {type(error).__name__}: {error}",
                code="BACKBONE_POLICY",
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        self._closed = True


def load(
    rest: str,
    *,
    version: str | None = None,
    profile: str = "compact",
    latency_s: float = 0.0,
    token_s: float = 0.0,
    max_context: int = 1_000_000,
) -> ScriptedBackbone:
    """The factory behind "scripted:MODULE:POLICY" (POLICY defaults to `policy`).

    Raises:
        BackboneError: BACKBONE_POLICY.
    """
    module, _, name = rest.partition(":")
    try:
        policy = getattr(importlib.import_module(module), name or "policy")
    except (ImportError, AttributeError, ValueError) as error:
        raise BackboneError(
            f"no policy {rest!r}: {type(error).__name__}: {error}",
            code="BACKBONE_POLICY",
            hint="scripted:package.module:function",
        ) from error
    return ScriptedBackbone(
        policy,
        version=version or f"scripted:{rest}",
        profile=profile,
        latency_s=latency_s,
        token_s=token_s,
        max_context=max_context,
    )
