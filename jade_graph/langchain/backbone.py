"""Any LangChain chat model as a backbone: for a role that a hosted model plays while the rest stay local.

Invariant: what such a model does not tell is not made up. Its token ids are nobody's (`exact_ids` is False): they only
carry the messages through the graph, are not recorded, and its actions never train; tokens are counted as it reports
them, else estimated at four bytes a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.constants import TAG_NOSTREAM

from jade_graph.errors import BackboneError
from jade_graph.types import Ask, Completion, FinishReason, Message, Sampling, Watch

_BYTES = 4
_CUT = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_KINDS: Mapping[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class ChatModelBackbone:
    """`Backbone` over a LangChain chat model.

    Args:
        model: any `BaseChatModel`, e.g. `ChatOpenAI(model="gpt-..", temperature=0)`. How it samples is its own affair.
        version: recorded on every completion; None: the model's own name. A hosted model may change under its name.
        max_context: prompt plus action, in (estimated) tokens.
        options: passed with every call, e.g. `{"max_tokens": 200}`; a role's own token limit has no name that all chat
            models share.
    """

    exact_ids = False
    streams = True

    def __init__(
        self,
        model: BaseChatModel,
        *,
        version: str | None = None,
        max_context: int = 128_000,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.options = dict(options or {})
        self._version = version or name_of(model)
        self._max_context = max_context

    def __repr__(self) -> str:
        return f"ChatModelBackbone({self._version!r})"

    @property
    def version(self) -> str:
        return self._version

    @property
    def profile(self) -> str:
        return "chat"

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def eos_token_id(self) -> int:
        return 0

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids that carry the messages, about as many as a tokenizer would make."""
        return self.encode_text(json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False))

    def encode_text(self, text: str) -> list[int]:
        data = text.encode("utf-8", errors="replace")
        chunks = (data[i : i + _BYTES] for i in range(0, len(data), _BYTES))
        return [len(chunk) << 32 | int.from_bytes(chunk, "big") for chunk in chunks]

    def decode(self, token_ids: Sequence[int]) -> str:
        chunks = ((token & 0xFFFFFFFF).to_bytes(token >> 32, "big") for token in token_ids)
        return b"".join(chunks).decode("utf-8", errors="replace")

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        sampling: Sampling,
        *,
        hint: Ask | None = None,
        watch: Watch | None = None,
    ) -> Completion:
        """Ask the model. The completion has no ids and no log-probabilities; `hint` is ignored.

        Raises:
            BackboneError: CONTEXT_OVERFLOW, BACKBONE_PROMPT (ids that `encode` did not make), BACKBONE_CHOICES,
                BACKBONE_FORCED, BACKBONE_CHAT_MODEL (whatever the model raised).
        """
        del hint
        self._check(prompt_token_ids, sampling)
        try:
            told = await self._answer(self._messages(prompt_token_ids), watch)
        except BackboneError:
            raise
        except Exception as error:
            raise BackboneError(
                f"the chat model {self._version!r} failed: {type(error).__name__}: {error}", code="BACKBONE_CHAT_MODEL"
            ) from error
        text = str(told.text)
        usage = getattr(told, "usage_metadata", None) or {}
        reason = told.response_metadata.get("finish_reason") or told.response_metadata.get("stop_reason")
        finish: FinishReason = "length" if reason in _CUT else "stop"
        return Completion(
            text,
            (),
            (),
            finish,
            self._version,
            prompt_tokens=int(usage.get("input_tokens") or len(prompt_token_ids)),
            action_tokens=int(usage.get("output_tokens") or len(self.encode_text(text))),
        )

    async def _answer(self, messages: list[BaseMessage], watch: Watch | None) -> Any:
        if watch is None:
            return await self.model.ainvoke(messages, **self.options)
        # Its own tokens, tags and all, are not those of the run's answer, which a graph's stream of messages shows.
        quiet: RunnableConfig = {"tags": [TAG_NOSTREAM]}
        whole: Any = None
        async for chunk in self.model.astream(messages, quiet, **self.options):
            whole = chunk if whole is None else whole + chunk
            if text := str(chunk.text):
                watch(text)
        if whole is None:
            raise ValueError("it streamed nothing")
        return whole

    async def aclose(self) -> None:
        """Nothing to close: the chat model belongs to the caller."""

    def _check(self, prompt: Sequence[int], sampling: Sampling) -> None:
        wrong = {"BACKBONE_CHOICES": sampling.choices, "BACKBONE_FORCED": sampling.forced}
        for code, asked in wrong.items():
            if asked is not None:
                raise BackboneError(
                    f"the chat model {self._version!r} writes what it likes: it cannot be held to given tokens.",
                    code=code,
                    hint="constrained=False and explore=0, or a local backbone for this role",
                )
        if len(prompt) + sampling.max_new_tokens > self._max_context:
            raise BackboneError(
                f"a prompt of about {len(prompt)} tokens and {sampling.max_new_tokens} new ones exceed the context of "
                f"{self._max_context}.",
                code="CONTEXT_OVERFLOW",
                hint="fewer or shorter documents, or max_context=.. where the model takes more",
            )

    def _messages(self, ids: Sequence[int]) -> list[BaseMessage]:
        try:
            pairs = json.loads(self.decode(ids))
            return [_KINDS[role](content=content) for role, content in pairs]
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise BackboneError(
                f"a chat model takes messages, and these ids carry none: {list(ids[:8])!r}.",
                code="BACKBONE_PROMPT",
                hint="backbone.encode(messages)",
            ) from error


def name_of(model: BaseChatModel) -> str:
    """How a chat model calls itself: its model name where it has one, else its kind."""
    for attribute in ("model_name", "model", "deployment_name", "model_id"):
        found = getattr(model, attribute, None)
        if isinstance(found, str) and found:
            return found
    return model._llm_type
