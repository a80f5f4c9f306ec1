"""A run's tokens, searches and steps for whoever listens through LangChain and LangGraph.

Invariant: where nobody listens nothing is sent. What LangChain's own events look like is known to whoever is handed in
(`Announcer`): here is who listens, and when there is something to announce.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from langchain_core.runnables.config import get_async_callback_manager_for_config
from langgraph.config import get_config, get_stream_writer

from jade_graph.errors import JadeError
from jade_graph.types import Effect, Event, Retriever, Tool, Transition, View
from jade_graph.workflow.context import RunContext
from jade_graph.workflow.speech import Speech


class Chat(Protocol):
    """Announces an action that gives the answer."""

    def hear(self, event: Event) -> None: ...
    async def end(self, error: BaseException | None) -> None: ...


class Search(Protocol):
    """Announces a search."""

    async def end(self, found: Effect | None, error: BaseException | None) -> None: ...


class Announcer(Protocol):
    """Makes a run's answer and searches events of LangChain's; `manager` is the callback manager that hears them."""

    def chat(self, ctx: RunContext, manager: Any) -> Chat: ...
    async def search(self, code: str, query: str, manager: Any) -> Search: ...


def listeners(ctx: RunContext) -> Any:
    """Whoever hears LangChain's events of this node; None: nobody.

    Of a run within another graph's node the events are that node's: a stream of the graph around it shows those of its
    own nodes alone.
    """
    if ctx.alone:
        return None
    manager = get_async_callback_manager_for_config(ctx.around or get_config())
    return manager if manager.handlers else None


@contextlib.asynccontextmanager
async def speaking(ctx: RunContext, announcer: Announcer | None) -> AsyncIterator[Speech | None]:
    """What the answer is said through; None where nobody hears it."""
    manager = None if announcer is None else listeners(ctx)
    if announcer is None or manager is None:
        yield ctx.speech if ctx.heard else None
        return
    chat = announcer.chat(ctx, manager)
    ctx.speech.also = chat.hear
    error: BaseException | None = None
    try:
        yield ctx.speech
    except BaseException as raised:
        error = raised
        raise
    finally:
        ctx.speech.also = None
        await chat.end(error)


@contextlib.asynccontextmanager
async def searching(
    ctx: RunContext, announcer: Announcer | None, tool: Tool, view: View, retriever: Retriever | None
) -> AsyncIterator[Callable[[Effect | None], None]]:
    """Announces a search; what it found is said to what this gives.

    A retriever that sends LangChain's events itself says so by an attribute `told_by_langchain = True`.
    """
    found: list[Effect | None] = []
    manager = None
    if getattr(tool, "searches", True) and not getattr(retriever, "told_by_langchain", False):
        manager = listeners(ctx)
    if announcer is None or manager is None:
        yield found.append
        return
    search = await announcer.search(tool.code, "\n".join(view.memory.get("queries") or (view.question,)), manager)
    try:
        yield found.append
    except BaseException as error:
        await search.end(None, error)
        raise
    effect = found[0] if found else None
    failed = JadeError(ctx.fatal_message or "the search failed.", code=ctx.fatal or "TOOL_ERROR")
    await search.end(effect, failed if effect is None else None)


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
