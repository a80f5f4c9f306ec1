"""Any backbone as a LangChain chat model.

Invariant: the token ids and log-probabilities in `response_metadata` are those of the backbone, one for one; what the
model cannot do (tools, images) is refused by name. Concurrent calls reach the backbone together and are batched by it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from operator import itemgetter
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field
from pydantic.errors import PydanticInvalidForJsonSchema

from jade_graph.errors import UsageError
from jade_graph.langchain.adapting import as_backbone
from jade_graph.langchain.filling import Filler
from jade_graph.langchain.messages import to_backbone
from jade_graph.langchain.shapes import Generator, Shapes, wrong
from jade_graph.sync import iterate_sync, run_sync
from jade_graph.types import Ask, Backbone, Completion, Sampling, View
from jade_graph.workflow.context import counts_draws, knows_ids, streams

_METHODS = ("json_schema", "json_mode", "function_calling")


class NoToolsError(UsageError, NotImplementedError):
    """The model calls no tools."""


class JadeChatModel(BaseChatModel):
    """A chat model over a backbone: `JadeChatModel(backbone="tiny")`, or over the one of a graph.

    Args:
        backbone: a `Backbone`, or a name for `load_backbone` (loaded when made).
        temperature, top_p: 0 is greedy.
        max_tokens: most new tokens; fewer where the context has no room for them.
        seed: None: every call draws anew; the seed that was used is in `response_metadata`.
        stop: texts that end the answer; they are not part of it.
        timeout: seconds for one call.
        stream_tokens: tokens between two chunks of a stream that a stop text may end.
        streaming: `invoke` too draws in chunks where somebody listens for tokens.

    Raises:
        UsageError, BackboneError: the backbone is not there.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    backbone: Any = "tiny"
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    seed: int | None = None
    stop: list[str] | None = None
    timeout: float | None = Field(default=None, gt=0)
    stream_tokens: int = Field(default=8, ge=1)
    streaming: bool = False

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.backbone = as_backbone(self.backbone)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> JadeChatModel:
        return self.model_copy()  # the weights are shared

    @property
    def _llm_type(self) -> str:
        return "jade"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What an answer depends on: what LangChain's caches know a model by."""
        return {
            "model_name": self.backbone.version,
            "profile": self.backbone.profile,
            "max_context": self.backbone.max_context,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stops": self.stop,  # LangChain writes a call's own over "stop"
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = super()._get_ls_params(stop=stop, **kwargs)
        return {**found, "ls_provider": "jade", "ls_model_name": kwargs.get("model") or self.backbone.version}

    def get_token_ids(self, text: str) -> list[int]:
        """The backbone's own token ids of a text."""
        return list(self.backbone.encode_text(text))

    def get_num_tokens_from_messages(self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the prompt that these messages become, with the chat template's own. Raises as a call would."""
        if tools:
            raise self._no_tools()
        return len(self.backbone.encode(to_backbone(messages)))

    # --- one answer ---------------------------------------------------------------------------------------------------
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        schema = kwargs.pop("json_schema", None)
        ids, sampling, hint, ends = self._request(messages, stop, schema, kwargs)
        async with asyncio.timeout(self.timeout):
            if schema is not None:
                message = await self._filled(ids, sampling, schema)
            else:
                done = [d async for d in self._pieces(ids, sampling, hint, ends)]
                message = self._message(ids, sampling, done, self._cut(done, ends)[0])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        return run_sync(self._agenerate(messages, stop, **kwargs))

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """All at once: the backbone batches them. `max_concurrency` of the config bounds it."""
        return run_sync(self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs))

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, schema: Any, kwargs: dict[str, Any]
    ) -> tuple[list[int], Sampling, Ask, tuple[str, ...]]:
        known = {"temperature", "top_p", "max_tokens", "seed"}
        for name in kwargs:
            if name not in known:
                if name in ("tools", "tool_choice", "functions"):
                    raise self._no_tools()
                raise UsageError(f"unknown option {name!r}.", code="UNKNOWN_OPTION", known=sorted(known))
        prompt = to_backbone(messages)
        if schema is not None and self.backbone.profile == "chat":
            told = f"Answer with one JSON object of this schema and nothing else:\n{json.dumps(schema)}"
            prompt = to_backbone([*_with_system(messages, told)])
        ids = self.backbone.encode(prompt)
        seed = kwargs.get("seed", self.seed)
        room = self.backbone.max_context - len(ids)
        wanted = int(kwargs.get("max_tokens", self.max_tokens))
        sampling = Sampling(
            temperature=float(kwargs.get("temperature", self.temperature)),
            top_p=float(kwargs.get("top_p", self.top_p)),
            max_new_tokens=min(wanted, room) if room > 0 else wanted,
            seed=secrets.randbits(48) if seed is None else int(seed),
        )
        last = next((m.content for m in reversed(prompt) if m.role == "user"), "")
        hint = Ask("chat", View(last, last, "root", {"messages": tuple(prompt)}))
        ends = tuple(s for s in (stop if stop is not None else self.stop or ()) if s)
        return ids, sampling, hint, ends

    async def _pieces(
        self, ids: list[int], sampling: Sampling, hint: Ask, ends: Sequence[str], size: int | None = None
    ) -> AsyncIterator[Completion]:
        """The answer in one piece; in several where somebody waits for them or a stop text may end it early.

        A seed's answer is the same in both ways. Where the backbone cannot go on with a seed, it is drawn whole.
        """
        whole = (size is None and not ends) or not getattr(self.backbone, "continues", True)
        whole = whole or not knows_ids(self.backbone) or (sampling.temperature > 0 and not counts_draws(self.backbone))
        left, context, done = sampling.max_new_tokens, list(ids), list[Completion]()
        step = size or 16
        while left > 0:
            wanted = left if whole else min(step, left)
            drawn = replace(sampling, max_new_tokens=wanted, drawn=sampling.max_new_tokens - left)
            piece = await self.backbone.generate(context, drawn, hint=hint)
            done.append(piece)
            yield piece
            if piece.finish_reason != "length" or self._cut(done, ends)[1]:
                return
            context += piece.token_ids
            left -= wanted
            step *= 1 if size else 2

    def _cut(self, done: Sequence[Completion], ends: Sequence[str]) -> tuple[str, bool]:
        """The text so far, up to the first stop text, and whether there was one."""
        if len(done) == 1:
            text = done[0].text
        else:
            ids = [t for d in done for t in d.token_ids]
            text = self.backbone.decode(ids if done and done[-1].finish_reason == "length" else ids[:-1])
        found = [at for end in ends if (at := text.find(end)) >= 0]
        return (text[: min(found)], True) if found else (text, False)

    def _message(self, ids: list[int], sampling: Sampling, done: Sequence[Completion], text: str) -> AIMessage:
        told = self._metadata(sampling, done)
        told |= {"prompt_token_ids": list(ids) if knows_ids(self.backbone) else []}
        told |= {"token_ids": [t for d in done for t in d.token_ids], "logprobs": [p for d in done for p in d.logprobs]}
        return AIMessage(text, response_metadata=told, usage_metadata=_usage(len(ids), done))

    def _metadata(self, sampling: Sampling, done: Sequence[Completion]) -> dict[str, Any]:
        return {
            "model_name": done[-1].model_version,
            "model_provider": "jade",
            "finish_reason": "length" if self._ran_out(sampling, done) else "stop",
            "seed": sampling.seed,
            "model_ms": round(sum(d.model_ms for d in done), 3),
            "queue_ms": round(sum(d.queue_ms for d in done), 3),
        }

    def _ran_out(self, sampling: Sampling, done: Sequence[Completion]) -> bool:
        return done[-1].finish_reason == "length" and sum(len(d.token_ids) for d in done) >= sampling.max_new_tokens

    # --- streaming ----------------------------------------------------------------------------------------------------
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """The text as it is drawn, the ids in the last chunk; a stream says what a call with its seed says. With stop
        texts, and over a backbone that does not tell what it draws, chunks of `stream_tokens` tokens with their ids.
        """
        if "json_schema" in kwargs:
            (generation,) = (await self._agenerate(messages, stop, None, **kwargs)).generations
            message = generation.message
            usage = message.usage_metadata if isinstance(message, AIMessage) else None
            whole = AIMessageChunk(
                content=message.content, response_metadata=message.response_metadata, usage_metadata=usage
            )
            yield ChatGenerationChunk(message=whole)
            return
        del run_manager
        ids, sampling, hint, ends = self._request(messages, stop, None, kwargs)
        if not ends and streams(self.backbone):
            async with asyncio.timeout(self.timeout), aclosing(self._live(ids, sampling, hint)) as chunks:
                async for chunk in chunks:
                    yield ChatGenerationChunk(message=chunk)
            return
        done: list[Completion] = []
        sent, hold = "", max((len(e) for e in ends), default=1) - 1
        async with asyncio.timeout(self.timeout):
            async for piece in self._pieces(ids, sampling, hint, ends, self.stream_tokens):
                done.append(piece)
                text, ended = self._cut(done, ends)
                over = ended or piece.finish_reason != "length" or self._ran_out(sampling, done)
                # Held back: what may be the beginning of a stop text, or half a character.
                upto = text if over else text[: len(text) - hold].rstrip("\ufffd")
                told: dict[str, Any] = {"token_ids": list(piece.token_ids), "logprobs": list(piece.logprobs)}
                if len(done) == 1:
                    told["prompt_token_ids"] = list(ids) if knows_ids(self.backbone) else []
                fresh = upto[len(sent) :] if upto.startswith(sent) else ""
                if over:
                    told |= self._metadata(sampling, done)
                chunk = AIMessageChunk(
                    content=fresh,
                    response_metadata=told,
                    usage_metadata=_usage(len(ids) if len(done) == 1 else 0, [piece]),
                )
                sent += fresh
                if over:
                    chunk.chunk_position = "last"
                yield ChatGenerationChunk(message=chunk)

    async def _live(self, ids: list[int], sampling: Sampling, hint: Ask) -> AsyncGenerator[AIMessageChunk]:
        """One request, whose pieces are told as they are drawn. Leaving early withdraws it."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.ensure_future(self.backbone.generate(ids, sampling, hint=hint, watch=pieces.put_nowait))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield AIMessageChunk(content=piece)
            last = self._message(ids, sampling, [await task], "")
        finally:
            task.cancel()
            await asyncio.wait({task})
        chunk = AIMessageChunk(content="", chunk_position="last", response_metadata=last.response_metadata)
        chunk.usage_metadata = last.usage_metadata
        yield chunk

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        del run_manager
        return iterate_sync(self._astream(messages, stop, None, **kwargs))

    # --- structured output, tools -------------------------------------------------------------------------------------
    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """A runnable whose answers are of the schema: a Pydantic model, a TypedDict or a JSON schema.

        The skeleton of the JSON is written for the model and it fills in the values, so the shape is right with any
        model; whether the values are sensible is up to it. Which arm of a union it is the model chooses by its own
        probabilities. Bounds and patterns are checked afterwards.

        Raises:
            UsageError: STRUCTURED_SCHEMA for what cannot be filled in, e.g. arms that begin alike;
                STRUCTURED_TOKENIZER (when called).
        """
        method = kwargs.pop("method", "json_schema")  # of other models: here there is one way, and it keeps the shape
        kwargs.pop("strict", None)  # the shape is always kept
        if method not in _METHODS or kwargs:
            raise UsageError(
                f"structured output has no {sorted(kwargs) or method!r}.",
                code="UNKNOWN_OPTION",
                known=["include_raw", *(f"method={name!r}" for name in _METHODS)],
            )
        if not knows_ids(self.backbone):
            raise UsageError(
                f"the backbone {self.backbone.version!r} has no token ids of its own to fill a schema with.",
                code="STRUCTURED_SCHEMA",
                hint="with_structured_output of the chat model behind it",
            )
        pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
        wanted = _schema_of(schema)
        Shapes(wanted, checked=pydantic)
        format_ = {"kwargs": {"method": method}, "schema": wanted}
        llm = self.bind(json_schema=wanted, ls_structured_output_format=format_)
        parser: Runnable[Any, Any] = (
            PydanticOutputParser(pydantic_object=schema) if pydantic else JsonOutputParser()  # type: ignore[arg-type]
        )
        if not include_raw:
            return llm | parser
        ok = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | ok.with_fallbacks([failed], exception_key="parsing_error")

    async def _filled(self, ids: list[int], sampling: Sampling, schema: dict[str, Any]) -> AIMessage:
        filler = Filler(self.backbone, ids, sampling, Shapes(schema))
        text = await filler.fill()
        message = self._message(ids, sampling, filler.sampled or [_nothing(self.backbone)], text)
        message.response_metadata["finish_reason"] = "length" if filler.cut else "stop"
        return message

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Raises `NoToolsError` (a `NotImplementedError`): the roles' models write answers, not calls."""
        del tools, kwargs
        raise self._no_tools()

    def _no_tools(self) -> NoToolsError:
        return NoToolsError(
            f"the model {self.backbone.version!r} calls no tools.",
            code="CHAT_NO_TOOLS",
            hint="with_structured_output(Schema); or an agent of another model with tools=[graph.as_tool()]",
        )


def _schema_of(schema: dict[str, Any] | type) -> dict[str, Any]:
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return convert_to_json_schema(schema)
    try:
        return schema.model_json_schema(schema_generator=Generator)
    except PydanticInvalidForJsonSchema as error:
        raise wrong({"title": schema.__name__}, f"cannot be written as JSON: {error.message}") from error


def _usage(prompt: int, done: Sequence[Completion]) -> UsageMetadata:
    told = sum(len(d.token_ids) if d.action_tokens is None else d.action_tokens for d in done)
    read = prompt if done[0].prompt_tokens is None else done[0].prompt_tokens
    return UsageMetadata(input_tokens=read, output_tokens=told, total_tokens=read + told)


def _with_system(messages: list[BaseMessage], told: str) -> list[BaseMessage]:
    from langchain_core.messages import SystemMessage

    if messages and isinstance(messages[0], SystemMessage):
        return [SystemMessage(f"{messages[0].text}\n\n{told}"), *messages[1:]]
    return [SystemMessage(told), *messages]


def _nothing(backbone: Backbone) -> Completion:
    """Of a schema that leaves nothing to draw."""
    return Completion("", (), (), "stop", backbone.version)
