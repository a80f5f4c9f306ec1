"""A run's answer and searches as LangChain's own events: chat model and retriever runs.

Invariant: one action that gives the answer is one chat model run, begun with its first token; each text that is shown
anew is a message with an id of its own, and the one before it is taken back by an empty chunk that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    AsyncCallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from jade_graph.errors import JadeError
from jade_graph.types import Effect, Event, Message, Passage
from jade_graph.workflow.context import RunContext

RETRACTED: Mapping[str, Any] = {"jade": {"event": "retract"}}
"""The `response_metadata` of the empty chunk that takes a message back."""

_KINDS: Mapping[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class Announcer:
    """What an engine announces its runs through, where LangChain's callbacks listen."""

    def chat(self, ctx: RunContext, manager: AsyncCallbackManager) -> Chat:
        return Chat(ctx, manager)

    async def search(self, code: str, query: str, manager: AsyncCallbackManager) -> Search:
        about = {"name": code, "id": ["jade_graph", code]}
        return Search(await manager.on_retriever_start(about, query, name=code))


class Chat:
    """The chat model run of one action, as its events come."""

    def __init__(self, ctx: RunContext, manager: AsyncCallbackManager) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._ctx = ctx
        self._manager = manager
        self._run: AsyncCallbackManagerForLLMRun | None = None
        self._seq = ctx.next_seq
        self._messages = 0
        self._text = ""
        self._work = asyncio.create_task(self._announce())

    def hear(self, event: Event) -> None:
        self._queue.put_nowait(event)

    async def end(self, error: BaseException | None) -> None:
        """The action is over: all that was heard is announced, and how it ended."""
        self._queue.put_nowait(None)
        await self._work
        if self._run is None:
            return
        if error is None and self._ctx.fatal is not None:
            error = JadeError(self._ctx.fatal_message or "the run failed.", code=self._ctx.fatal)
        if error is not None:
            await self._run.on_llm_error(error)
        else:
            message = AIMessage(self._text, id=self._id)
            await self._run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))

    @property
    def _id(self) -> str:
        return f"{self._ctx.run.id}-{self._seq}-{self._messages}"

    async def _announce(self) -> None:
        while (event := await self._queue.get()) is not None:
            if self._run is None:
                if event.kind == "retract":  # of what an earlier action said: its message is complete
                    continue
                self._run = await self._begin(event)
            if event.kind == "retract":
                chunk = AIMessageChunk(content="", id=self._id, response_metadata=dict(RETRACTED))
                self._messages, self._text = self._messages + 1, ""
            else:
                chunk = AIMessageChunk(content=event.text, id=self._id)
                self._text += event.text
            await self._run.on_llm_new_token(event.text, chunk=ChatGenerationChunk(message=chunk))

    async def _begin(self, event: Event) -> AsyncCallbackManagerForLLMRun:
        named = event.role or "answer"
        (run,) = await self._manager.on_chat_model_start(
            {"name": named, "id": ["jade_graph", named]},
            [messages_of(self._ctx.speech.prompt) or [HumanMessage(self._ctx.run.question)]],
            name=named,
            invocation_params={"model": self._ctx.run.backbone_version},
        )
        return run


class Search:
    """The retriever run of one search."""

    def __init__(self, run: AsyncCallbackManagerForRetrieverRun) -> None:
        self._run = run

    async def end(self, found: Effect | None, error: BaseException | None) -> None:
        if error is not None:
            await self._run.on_retriever_error(error)
        else:
            documents = found.memory.get("documents") if found is not None else ()
            await self._run.on_retriever_end([document_of(d) for d in documents or ()])


def messages_of(prompt: tuple[Message, ...]) -> list[BaseMessage]:
    return [_KINDS[m.role](content=m.content) for m in prompt]


def document_of(passage: Passage) -> Document:
    """A LangChain document: the passage's own metadata, with title and score beside it."""
    own = {"title": passage.title, "score": passage.score} if passage.title else {"score": passage.score}
    return Document(id=passage.id, page_content=passage.text, metadata={**own, **passage.metadata})
