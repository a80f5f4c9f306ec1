"""A run's tokens, searches and steps as LangChain's and LangGraph's own events, for whoever listens through them.

Invariant: where nobody listens nothing is sent. One action that gives the answer is one chat model run, begun with its
first token; each text that is shown anew is a message with an id of its own, and the one before it is taken back by an
empty chunk that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables.config import get_async_callback_manager_for_config
from langgraph.config import get_config, get_stream_writer

from jade_graph.errors import JadeError
from jade_graph.types import Effect, Event, Passage, Retriever, Tool, Transition, View
from jade_graph.workflow.context import RunContext
from jade_graph.workflow.speech import Speech

RETRACTED: Mapping[str, Any] = {"jade": {"event": "retract"}}
"""The `response_metadata` of the empty chunk that takes a message back."""

_KINDS: Mapping[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


def listeners(ctx: RunContext) -> AsyncCallbackManager | None:
    """Whoever hears LangChain's events of this node; None: nobody.

    Of a run within another graph's node the events are that node's: a stream of the graph around it shows those of its
    own nodes alone.
    """
    if ctx.alone:
        return None
    manager = get_async_callback_manager_for_config(ctx.around or get_config())
    return manager if manager.handlers else None


# --- the answer -------------------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def speaking(ctx: RunContext) -> AsyncIterator[Speech | None]:
    """What the answer is said through; None where nobody hears it."""
    manager = listeners(ctx)
    if manager is None:
        yield ctx.speech if ctx.heard else None
        return
    chat = _Chat(ctx, manager)
    ctx.speech.also = chat.queue.put_nowait
    work = asyncio.create_task(chat.work())
    error: BaseException | None = None
    try:
        yield ctx.speech
    except BaseException as raised:
        error = raised
        raise
    finally:
        ctx.speech.also = None
        chat.queue.put_nowait(None)
        await work
        await chat.end(error)


class _Chat:
    """The chat model run of one action, as its events come."""

    def __init__(self, ctx: RunContext, manager: AsyncCallbackManager) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._ctx = ctx
        self._manager = manager
        self._run: AsyncCallbackManagerForLLMRun | None = None
        self._seq = ctx.next_seq
        self._messages = 0
        self._text = ""

    @property
    def _id(self) -> str:
        return f"{self._ctx.run.id}-{self._seq}-{self._messages}"

    async def work(self) -> None:
        while (event := await self.queue.get()) is not None:
            if self._run is None:
                if event.kind == "retract":  # of what an earlier action said: its message is complete
                    continue
                self._run = await self._begin(event)
            if event.kind == "retract":
                chunk = AIMessageChunk("", id=self._id, response_metadata=dict(RETRACTED))
                self._messages, self._text = self._messages + 1, ""
            else:
                chunk = AIMessageChunk(event.text, id=self._id)
                self._text += event.text
            await self._run.on_llm_new_token(event.text, chunk=ChatGenerationChunk(message=chunk))

    async def _begin(self, event: Event) -> AsyncCallbackManagerForLLMRun:
        prompt = [_KINDS[m.role](content=m.content) for m in self._ctx.speech.prompt]
        named = event.role or "answer"
        (run,) = await self._manager.on_chat_model_start(
            {"name": named, "id": ["jade_graph", named]},
            [prompt or [HumanMessage(self._ctx.run.question)]],
            name=named,
            invocation_params={"model": self._ctx.run.backbone_version},
        )
        return run

    async def end(self, error: BaseException | None) -> None:
        if self._run is None:
            return
        if error is None and self._ctx.fatal is not None:
            error = JadeError(self._ctx.fatal_message or "the run failed.", code=self._ctx.fatal)
        if error is not None:
            await self._run.on_llm_error(error)
        else:
            message = AIMessage(self._text, id=self._id)
            await self._run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))


# --- searches ---------------------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def searching(
    ctx: RunContext, tool: Tool, view: View, retriever: Retriever | None
) -> AsyncIterator[Callable[[Effect | None], None]]:
    """A search as LangChain's retriever run; what it found is said to what this gives.

    A retriever that sends these events itself says so by an attribute `told_by_langchain = True`.
    """
    found: list[Effect | None] = []
    manager = None
    if getattr(tool, "searches", True) and not getattr(retriever, "told_by_langchain", False):
        manager = listeners(ctx)
    if manager is None:
        yield found.append
        return
    query = "\n".join(view.memory.get("queries") or (view.question,))
    run = await manager.on_retriever_start({"name": tool.code, "id": ["jade_graph", tool.code]}, query, name=tool.code)
    try:
        yield found.append
    except BaseException as error:
        await run.on_retriever_error(error)
        raise
    effect = found[0] if found else None
    if effect is None:
        code = ctx.fatal or "TOOL_ERROR"
        await run.on_retriever_error(JadeError(ctx.fatal_message or "the search failed.", code=code))
    else:
        await run.on_retriever_end([document_of(d) for d in effect.memory.get("documents") or ()])


def document_of(passage: Passage) -> Document:
    """A LangChain document: the passage's own metadata, with title and score beside it."""
    own = {"title": passage.title, "score": passage.score} if passage.title else {"score": passage.score}
    return Document(id=passage.id, page_content=passage.text, metadata={**own, **passage.metadata})


# --- stream_mode="custom" ---------------------------------------------------------------------------------------------
def writer() -> Callable[[Event], None]:
    """What writes a run's events to the custom stream of the node that calls."""
    write = get_stream_writer()

    def put(event: Event) -> None:
        if (said := told(event)) is not None:
            write(said)

    return put


def told(event: Event) -> dict[str, Any] | None:
    """An event of a run as plain values; None for one that is not streamed."""
    head = {"event": event.kind, "run_id": event.run_id}
    if event.kind == "token":
        return {**head, "role": event.role, "trace_node": event.trace_node, "text": event.text}
    if event.kind == "retract":
        return head
    if event.transition is not None:
        return {**head, "event": "step", **_step(event.transition)}
    if event.kind == "trace":
        nodes = event.nodes.values()
        told = [{"id": n.id, "question": n.text, "status": n.status.value, "answer": n.answer} for n in nodes]
        return {**head, "nodes": told}
    if event.kind == "end" and event.run is not None:
        return {**head, "status": event.run.status, "answer": event.run.answer, "error": event.run.error}
    return None


def _step(t: Transition) -> dict[str, Any]:
    told = {"seq": t.seq, "role": t.role, "trace_node": t.trace_node, "text": t.action_text}
    return {**told, "violation": t.violation, "error": t.error, "ms": round(t.latency_ms, 3)}
