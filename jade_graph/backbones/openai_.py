"""A model behind a vLLM-style server: prompt ids in, token ids and log-probabilities out, over `/v1/completions`.

Invariant: nothing is tokenised again and nothing is guessed. Ids and log-probabilities are the server's own, of the
distribution that was sampled; a server that cannot say them is an error, not an approximation.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from jade_graph.backbones.checks import check_prompt, check_sampling
from jade_graph.backbones.codec import Codec, read_json
from jade_graph.backbones.folders import find_folder
from jade_graph.backbones.line import SERVE_HINT, Line, bearer, is_loopback
from jade_graph.backbones.trie import trie_of
from jade_graph.backbones.watching import Watching, deliver
from jade_graph.errors import BackboneError, JadeError, unknown
from jade_graph.types import Ask, Completion, FinishReason, Message, Sampling, Thought, Watch

_INT63 = 2**63 - 1


class OpenAIBackbone:
    """`Backbone` over a server. Use `connect` to make one.

    Args:
        url: of the API, e.g. "http://127.0.0.1:8000/v1".
        model: its name on the server.
        codec: the model's own tokenizer and template, loaded here: ids must be exact.
        version: recorded on every completion; name the weights, as the server cannot.
        max_context: prompt plus action, in tokens.
        api_key: sent as a bearer token.
        timeout_s: for one request, from connecting to the last byte.
        retries: tries after the first, on lost connections, 429 and 5xx.
        backoff_s: before the second try; doubles each time, unless the server names a time (Retry-After).
    """

    streams = True

    def __init__(
        self,
        url: str,
        model: str,
        codec: Codec,
        *,
        version: str,
        max_context: int,
        api_key: str | None = None,
        timeout_s: float = 300.0,
        retries: int = 5,
        backoff_s: float = 0.25,
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._codec = codec
        self._version = version
        self._max_context = max_context
        self._vocabulary = len(codec.tokenizer)
        self._processed: asyncio.Task[None] | None = None
        self._line = Line(url, api_key=api_key, timeout_s=timeout_s, retries=retries, backoff_s=backoff_s)
        self._finalizer = weakref.finalize(self, self._line.close)

    @property
    def version(self) -> str:
        return self._version

    @property
    def profile(self) -> str:
        return self._codec.profile

    @property
    def max_context(self) -> int:
        return self._max_context

    @property
    def eos_token_id(self) -> int:
        return self._codec.eos_token_id

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self._codec.eos_token_ids

    @property
    def codec(self) -> Codec:
        """The text side of the model."""
        return self._codec

    @property
    def thought(self) -> Thought | None:
        """How the model thinks before it answers, as far as its template tells."""
        return self._codec.thought

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._codec.encode(messages)

    def encode_text(self, text: str) -> list[int]:
        return self._codec.encode_text(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._codec.decode(token_ids)

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        sampling: Sampling,
        *,
        hint: Ask | None = None,
        watch: Watch | None = None,
    ) -> Completion:
        """Sample one action: see `types.Backbone`. `hint` is ignored. What is watched is streamed by the server.

        Choices are drawn by one short request per branching of their trie (`allowed_token_ids`): the ids are then
        exactly those of a choice, which a grammar over text would not promise.

        Raises:
            BackboneError: CONTEXT_OVERFLOW, BACKBONE_PROMPT, BACKBONE_SAMPLING, BACKBONE_CHOICES,
                BACKBONE_UNAVAILABLE (after all tries), BACKBONE_REFUSED, BACKBONE_NO_TOKEN_IDS,
                BACKBONE_BAD_RESPONSE, BACKBONE_RAW_LOGPROBS, BACKBONE_CLOSED.
        """
        del hint
        check_sampling(sampling, frozenset(self._codec.eos_token_ids))
        check_prompt(prompt_token_ids, sampling, self._max_context, self._vocabulary)
        if watch is None:
            return await self._line.call(self._generate(list(prompt_token_ids), sampling))
        with Watching(watch, self._codec.decode) as watching:
            done = await self._line.call(self._generate(list(prompt_token_ids), sampling, watching))
            watching.end(done.text)
        return done

    async def aclose(self) -> None:
        """Close the connections. Requests in flight fail with BACKBONE_CLOSED; closing twice does nothing."""
        await asyncio.to_thread(self._line.close)

    # --- on the line's own event loop -------------------------------------------------------------------------------
    async def _generate(self, prompt: list[int], sampling: Sampling, watching: Watching | None = None) -> Completion:
        started = time.perf_counter()
        if sampling.forced is not None:
            raise BackboneError(
                f"the server of {self._version!r} cannot score an action that it did not draw.",
                code="BACKBONE_FORCED",
                hint="explore=0, or a backbone in this process",
            )
        if sampling.choices is not None or sampling.temperature not in (0.0, 1.0) or sampling.top_p < 1:
            await self._check_processed(prompt)
        if sampling.choices is None:
            ids, logprobs, finish = await self._sample(prompt, sampling, sampling.max_new_tokens, watching=watching)
        else:
            ids, logprobs, finish = await self._choose(prompt, sampling)
        return Completion(
            text=self._codec.decode(ids[:-1] if finish == "stop" else ids),
            token_ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish_reason=finish,
            model_version=self._version,
            model_ms=1000 * (time.perf_counter() - started),
        )

    async def _choose(self, prompt: list[int], sampling: Sampling) -> tuple[list[int], list[float], FinishReason]:
        assert sampling.choices is not None
        trie = trie_of(sampling.choices)
        state, ids, logprobs = 0, list[int](), list[float]()
        while allowed := trie.allowed[state]:
            if len(allowed) == 1:  # nothing to draw
                token, logprob = allowed[0], 0.0
            else:
                (token,), (logprob,), _ = await self._sample(
                    [*prompt, *ids], sampling, 1, allowed=allowed, seed=sampling.seed + 0x9E3779B97F4A7C15 * len(ids)
                )
            ids.append(token)
            logprobs.append(logprob)
            state = trie.step[state][token]
        return ids, logprobs, "stop"

    async def _sample(
        self,
        prompt: list[int],
        sampling: Sampling,
        max_tokens: int,
        *,
        allowed: Sequence[int] | None = None,
        seed: int | None = None,
        watching: Watching | None = None,
    ) -> tuple[list[int], list[float], FinishReason]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": (sampling.seed if seed is None else seed) & _INT63,
            # A server takes these from the model's generation_config when they are left out.
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": list(self._codec.eos_token_ids),
            "add_special_tokens": False,
            "logprobs": 1,
            "return_token_ids": True,
            "stream": watching is not None,
            "n": 1,
        }
        if allowed is not None:
            body["allowed_token_ids"] = list(allowed)
        if watching is None:
            answer = await self._line.post("/completions", body)
        else:
            answer = await self._streamed(body, watching)
        ids, logprobs, finish = self._read(answer, prompt, max_tokens)
        if allowed is not None and (len(ids) != 1 or ids[0] not in allowed):
            raise self._bad(f"drew {ids!r} where only {list(allowed)!r} were allowed")
        return ids, logprobs, finish

    async def _streamed(self, body: Mapping[str, Any], watching: Watching) -> Any:
        """What the server streams, put together to the answer that it would have given at once."""
        choice: dict[str, Any] = {}

        def begun() -> Callable[[Any], None]:
            choice.clear()
            choice.update(token_ids=[], logprobs={"token_logprobs": []})
            return take

        def take(event: Any) -> None:
            parts = event.get("choices") if isinstance(event, Mapping) else None
            if parts is None or not isinstance(parts, list):
                raise self._bad(f"sent no choices: {str(event)[:200]!r}")
            for part in parts:
                ids, logprobs = part.get("token_ids"), (part.get("logprobs") or {}).get("token_logprobs") or []
                if ids is None and not part.get("finish_reason"):
                    choice["token_ids"] = None
                if choice["token_ids"] is None:
                    continue
                place = len(choice["token_ids"])
                choice["token_ids"] += ids or []
                choice["logprobs"]["token_logprobs"] += logprobs
                known = {name: part[name] for name in ("prompt_token_ids", "finish_reason") if part.get(name)}
                choice.update(known)
                ends = self._codec.eos_token_ids
                deliver([(watching, at, token) for at, token in enumerate(ids or [], place) if token not in ends])

        whole = await self._line.post("/completions", body, begun=begun)
        return {"choices": [choice]} if whole is None else whole

    def _read(self, answer: Any, prompt: list[int], max_tokens: int) -> tuple[list[int], list[float], FinishReason]:
        try:
            choice = answer["choices"][0]
        except (KeyError, IndexError, TypeError) as error:
            raise self._bad(f"sent no choices: {str(answer)[:200]!r}") from error
        ids = choice.get("token_ids")
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            raise BackboneError(
                f"the server at {self._url!r} returned no token ids (its token_ids are {ids!r}).",
                code="BACKBONE_NO_TOKEN_IDS",
                hint="a server that knows return_token_ids, such as vLLM 0.10.2 or later",
            )
        logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
        if not isinstance(logprobs, list) or not all(isinstance(value, int | float) for value in logprobs):
            raise self._bad(f"returned no log-probabilities (they are {logprobs!r})")
        if len(ids) != len(logprobs) or not 0 < len(ids) <= max_tokens:
            raise self._bad(f"returned {len(ids)} ids and {len(logprobs)} log-probabilities for {max_tokens} tokens")
        consumed = choice.get("prompt_token_ids")
        if consumed is not None and consumed != prompt:
            raise self._bad("consumed other prompt ids than were sent")
        if ids[-1] in self._codec.eos_token_ids:
            return ids, logprobs, "stop"
        if choice.get("finish_reason") != "length":
            raise self._bad(
                f"ended on token {ids[-1]} ({choice.get('finish_reason')!r}), which is none of this model's end "
                f"tokens {list(self._codec.eos_token_ids)}: is its tokenizer another one?"
            )
        return ids, logprobs, "length"

    async def _check_processed(self, prompt: list[int]) -> None:
        """Once: that the log-probabilities are those of the distribution sampled, after temperature and masks."""
        if self._processed is None or (self._processed.done() and self._failed(self._processed)):
            self._processed = asyncio.get_running_loop().create_task(self._probe(prompt))
        # Shielded: the caller who waits may be cancelled, others wait for the same answer.
        await asyncio.shield(self._processed)

    @staticmethod
    def _failed(task: asyncio.Task[None]) -> bool:
        return task.cancelled() or task.exception() is not None

    async def _probe(self, prompt: list[int]) -> None:
        only = self._codec.eos_token_id
        _, (logprob,), _ = await self._sample(prompt, Sampling(), 1, allowed=[only])
        if logprob < -1e-3:  # the only token allowed has probability 1
            raise BackboneError(
                f"the server at {self._url!r} reports log-probabilities from before temperature and masks "
                f"({logprob:.3f} for the only token allowed, instead of 0).",
                code="BACKBONE_RAW_LOGPROBS",
                hint=SERVE_HINT,
            )

    def _bad(self, what: str) -> BackboneError:
        return BackboneError(
            f"the server at {self._url!r} {what}.", code="BACKBONE_BAD_RESPONSE", hint="vLLM 0.10.2 or later"
        )


def connect(
    rest: str,
    *,
    tokenizer: str | None = None,
    profile: str | None = None,
    max_context: int | None = None,
    version: str | None = None,
    api_key: str | None = None,
    timeout_s: float = 300.0,
    retries: int = 5,
    template_options: Mapping[str, Any] | None = None,
    thought_tokens: int | None = None,
) -> OpenAIBackbone:
    """The factory behind "openai:URL#MODEL". Asks the server for its models; MODEL may be left out if it has one.

    Args:
        rest: e.g. "http://127.0.0.1:8000/v1#Qwen/Qwen2.5-7B-Instruct".
        tokenizer: folder or hub id of the model's tokenizer; None: what the server was started with.
        profile: "chat", "brief" or "compact"; None: "chat" where the tokenizer has a template.
        max_context: in tokens; None: the server's `max_model_len`.
        version: names the weights; None: the model's name on the server.
        api_key: None: the environment's JADE_OPENAI_API_KEY.
        timeout_s, retries: see `OpenAIBackbone`.
        template_options: further variables of the chat template.
        thought_tokens: see `Codec.make_room`.

    Raises:
        UsageError: UNKNOWN_MODEL.
        BackboneError: BACKBONE_UNAVAILABLE, BACKBONE_URL, or an error of loading the tokenizer.
    """
    url, _, name = rest.partition("#")
    if urlsplit(url).scheme not in ("http", "https"):
        raise BackboneError(
            f"{rest!r} is no server.", code="BACKBONE_URL", hint="openai:http://127.0.0.1:8000/v1#MODEL"
        )
    key = api_key or os.environ.get("JADE_OPENAI_API_KEY")
    served = _models(url, key)
    if not name and len(served) == 1:
        name = next(iter(served))
    if name not in served:
        raise unknown("model", name, served, code="UNKNOWN_MODEL", hint=f"openai:{url}#{next(iter(served), 'MODEL')}")
    source = tokenizer or served[name].get("root") or name
    try:
        folder = find_folder(str(source), weights=False)
    except JadeError as error:
        raise BackboneError(
            f"the tokenizer of {name!r} is not at {str(source)!r}.",
            code="BACKBONE_NOT_FOUND",
            hint="tokenizer=FOLDER_OR_HUB_ID: prompts are sent as token ids",
        ) from error
    context = int(max_context or served[name].get("max_model_len") or _positions(folder))
    codec = Codec.from_folder(folder, profile=profile, template_options=template_options)
    codec.make_room(context, thought_tokens)
    return OpenAIBackbone(
        url,
        name,
        codec,
        version=version or name,
        max_context=context,
        api_key=key,
        timeout_s=timeout_s,
        retries=retries,
    )


def _models(url: str, api_key: str | None) -> dict[str, dict[str, Any]]:
    try:
        with httpx.Client(headers=bearer(api_key), timeout=10.0, trust_env=not is_loopback(url)) as client:
            response = client.get(f"{url.rstrip('/')}/models")
            response.raise_for_status()
            return {str(entry["id"]): dict(entry) for entry in response.json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"no model server at {url!r}: {type(error).__name__}: {error}",
            code="BACKBONE_UNAVAILABLE",
            hint=SERVE_HINT,
        ) from error


def _positions(folder: Path) -> int:
    config = read_json(folder / "config.json")
    return int(config.get("max_position_embeddings") or 2048)
