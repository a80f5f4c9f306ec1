"""One invocation of the compiled graph, and the runs that it drives.

Invariant: a run is driven by one invocation at a time, and whatever ends an invocation (an error, a cancellation, a
stream that was left) ends its runs too, by a named error, unless they wait for a person. Whose graph is around it makes
no difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.graph.state import CompiledStateGraph

from jade_graph.errors import UsageError
from jade_graph.workflow.context import RunContext

KEY = "__jade_invocation"
"""Where the nodes find it, under `configurable`; two underscores keep it out of checkpoints and traces."""


class Keeper(Protocol):
    """Whoever ends runs and lets them wait."""

    def abort(self, ctx: RunContext, error: BaseException) -> None: ...
    def rest(self, ctx: RunContext) -> None: ...


class Invocation:
    """Who drives: `runs` are those that it took; `waits` says that the graph told of an interrupt."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.runs: list[RunContext] = []
        self.waits = False
        self.begun = False
        self.custom = False  # its graph, or one around it, may be streamed with stream_mode="custom"

    def ended(self, error: BaseException | None) -> None:
        """Let go of its runs: those that wait rest, the others end with the error."""
        runs, self.runs = self.runs, []
        for ctx in runs:
            left = isinstance(error, GeneratorExit) and (self.waits or bool(ctx.asking))
            if error is None or isinstance(error, GraphBubbleUp) or left or is_under_way(error):
                self.keeper.rest(ctx)
            else:
                self.keeper.abort(ctx, error)
                ctx.driver = None


class DrivenGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """The compiled graph. Every way to call it (invoke, stream, events, a node of another graph) is an invocation."""

    def __init__(self, *, keeper: Keeper, **parts: Any) -> None:
        super().__init__(**parts)
        self.keeper = keeper

    async def astream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        given = (config or {}).get("configurable") or {}
        found = given.get(KEY)
        if not isinstance(found, Invocation) or found.begun or found.keeper is not self.keeper:
            found = Invocation(self.keeper)
        found.begun = True
        asked = options.get("stream_mode") or ()
        found.custom = "custom" in ((asked,) if isinstance(asked, str) else asked) or _around(given)
        marked: RunnableConfig = {**(config or {}), "configurable": {**given, KEY: found}}
        error: BaseException | None = None
        try:
            stream: Any = super().astream(input, marked, **options)
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    found.waits = found.waits or _interrupted(chunk)
                    yield chunk
        except BaseException as raised:
            error = raised
            raise
        finally:
            found.ended(error)


def under_way(run_id: str, thread: str = "") -> UsageError:
    """Two want to drive one run."""
    which = f"run {run_id!r}" if run_id else f"the run on the thread {thread!r}"
    told = f"{which} is being gone on with by another call."
    return UsageError(told, code="RUN_UNDER_WAY", hint="wait until that one ends, or asks again")


def is_under_way(error: BaseException | None) -> bool:
    return isinstance(error, UsageError) and error.error_code == "RUN_UNDER_WAY"


def driven(compiled: CompiledStateGraph[Any, Any, Any, Any], keeper: Keeper) -> DrivenGraph:
    """The same graph, with its invocations watched."""
    parts = {name: part for name, part in vars(compiled).items() if name != "__orig_class__"}
    return DrivenGraph(keeper=keeper, **parts)


def here() -> tuple[Invocation | None, Mapping[str, Any]]:
    """The invocation that the calling node belongs to, and what its configuration says."""
    known = get_config().get("configurable") or {}
    found = known.get(KEY)
    return (found if isinstance(found, Invocation) else None), known


def thread_of(known: Mapping[str, Any]) -> tuple[str, str]:
    """The thread, and the outermost checkpoint that this invocation is a step of ("": it is the outermost itself).

    While a plan waits, the checkpoint stays the same; another one on the same thread has left it behind.
    """
    within = "|" in str(known.get("checkpoint_ns") or "")  # a node of this graph is one deep already
    around = (known.get("checkpoint_map") or {}).get("") if within else ""
    return str(known.get("thread_id") or ""), str(around or "")


def _around(known: Mapping[str, Any]) -> bool:
    return any(key.startswith("__pregel_") for key in known)


def _interrupted(chunk: Any) -> bool:
    part = chunk[-1] if isinstance(chunk, tuple) else chunk
    return isinstance(part, Mapping) and bool("__interrupt__" in part or part.get("interrupts"))
