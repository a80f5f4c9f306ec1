"""A run on its way through the compiled graph: begun, resumed, watched to its end.

Invariant: a run that was begun ends with an answer or a named error, or waits for a person; only what the caller said
wrong is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables.config import RunnableConfig, ensure_config
from langgraph.errors import GraphBubbleUp
from langgraph.types import Durability, StateSnapshot

from jade_graph.errors import UsageError
from jade_graph.types import Event, Limits, Recorder, Run
from jade_graph.workflow import approval, native
from jade_graph.workflow.context import RunContext, flushed
from jade_graph.workflow.contexts import Contexts
from jade_graph.workflow.invocation import KEY as INVOCATION
from jade_graph.workflow.invocation import DrivenGraph, Invocation, is_under_way, under_way
from jade_graph.workflow.nodes import Workflow
from jade_graph.workflow.supersteps import march, unwatched, within_graph

logger = logging.getLogger("jade_graph")


@dataclass(frozen=True, slots=True)
class Driver:
    """Takes the runs of one engine through its graph."""

    graph: DrivenGraph
    flow: Workflow
    contexts: Contexts
    recorder: Recorder | None
    durability: Durability | None

    async def waiting(self, config: RunnableConfig | None) -> RunContext | None:
        """The run to go on with, where a graph around this one is resumed after an interrupt within it."""
        inherited = ensure_config(config)
        known = inherited["configurable"]
        # LangGraph says the same of a node that it tries again, also where nothing was written that could be resumed.
        if not known.get("__pregel_resuming") or not known.get("__pregel_checkpointer", self.graph.checkpointer):
            return None
        snapshot = await self.graph.aget_state(inherited)
        return self.contexts.of(snapshot.values) if snapshot.next else None

    def shares(self, config: RunnableConfig | None) -> bool:
        """Whether other processes may find a run in a checkpoint."""
        known = ensure_config(config)["configurable"]
        return bool(known.get("__pregel_checkpointer", self.graph.checkpointer))

    async def left_behind(self, config: RunnableConfig | None) -> None:
        """End the run whose plan waits on this thread: once another question is asked, nobody can answer for it."""
        thread = ensure_config(config)["configurable"].get("thread_id")
        if self.flow.approve is None or not thread or within_graph(config):
            return
        snapshot = await self.graph.aget_state(ensure_config(config))  # also where another process asked
        if snapshot.interrupts and (ctx := self.contexts.waiting(snapshot.values)) is not None:
            self.contexts.leave(ctx)

    def taken(self, ctx: RunContext) -> Invocation:
        invocation = Invocation(self.contexts)
        self.contexts.take(ctx, invocation)
        return invocation

    async def drive(self, ctx: RunContext, invocation: Invocation, given: Any, config: RunnableConfig | None) -> Run:
        config = {**(config or {}), "recursion_limit": self.steps(ctx.limits)}
        if self.graph.checkpointer and not ensure_config(config)["configurable"].get("thread_id"):
            config["configurable"] = {**(config.get("configurable") or {}), "thread_id": ctx.run.id}
        try:
            out: Mapping[str, Any] = {}
            ctx.alone = self.graph.checkpointer is None and unwatched(config)
            if within_graph(config):
                ctx.around, ctx.writer = ensure_config(config), native.writer()
            if ctx.alone:
                await march(self.flow, given, config["recursion_limit"])
            else:
                mode = None if within_graph(config) else self.durability  # a graph around this one has its own
                config["configurable"] = {**(config.get("configurable") or {}), INVOCATION: invocation}
                out = await self.graph.ainvoke(given, config, durability=mode)
            if ctx.run.status == "running" and (asked := out.get("__interrupt__")):
                await flushed(self.recorder, ctx.run)  # whoever goes on with it elsewhere finds all of it
                ctx.tell(Event("waiting", ctx.run.id, run=ctx.run, waiting=approval.told(asked)))
                return ctx.run
            if ctx.run.status == "running":
                raise RuntimeError("the graph stopped without an end: a node sent the run to a node that is not there")
        except GraphBubbleUp:  # a graph around this one is interrupted: it comes back here when it is resumed
            raise
        except Exception as error:
            if is_under_way(error):  # the run is another's
                raise
            logger.exception("run %s failed", ctx.run.id)
            self.contexts.abort(ctx, error)
        except BaseException as error:  # cancelled: recorded, and on its way
            self.contexts.abort(ctx, error)
            raise
        finally:
            ctx.driver = None if ctx.driver is invocation else ctx.driver
        await flushed(self.recorder, ctx.run)
        return ctx.run

    def steps(self, limits: Limits) -> int:
        """More graph steps than a run within its limits can take: a round is its plan, its planner and two selects."""
        flow = self.flow
        longest = max((len(plan.steps) for plan in flow.grammar.plans), default=len(flow.roles) + len(flow.tools))
        return 20 + (longest + 4) * (limits.rounds + limits.sub_questions + 2)

    async def resume(
        self, said: Any, config: RunnableConfig, on_event: Callable[[Event], None] | None, tokens: bool = False
    ) -> Run:
        """See `Engine.aresume`."""
        known = ensure_config(config)["configurable"]
        thread, place = str(known.get("thread_id") or ""), str(known.get("checkpoint_ns") or "")
        with self.contexts.resuming(self.graph.checkpointer, thread, place):
            snapshot = await self.graph.aget_state(config)
            if not snapshot.next:
                raise UsageError(
                    f"no run waits on the thread {thread!r}.", code="NOTHING_WAITS", hint="ask a question on it first"
                )
            command = approval.command(said, [asked.id for asked in snapshot.interrupts])
            ctx = await self._claimed(snapshot, config)
            invocation = self.taken(ctx)
            ctx.on_event, ctx.tokens = on_event, tokens
            return await self.drive(ctx, invocation, command, config)

    async def _claimed(self, snapshot: StateSnapshot, config: RunnableConfig) -> RunContext:
        """The run of this snapshot, which no other process goes on with.

        Raises `UsageError` RUN_UNDER_WAY where one does, or has, since the snapshot was taken.
        """
        run_id = str(snapshot.values.get("run_id") or "")
        claim = self.contexts.claim(run_id)
        try:
            now = await self.graph.aget_state(config)
            if now.config != snapshot.config or now.interrupts != snapshot.interrupts:
                raise under_way(run_id)
            return self.contexts.of(snapshot.values, claim)
        except BaseException:
            if claim is not None:
                claim()
            raise
