"""A run's supersteps without LangGraph's machinery, for runs that nobody watches through it.

Invariant: these are the graph's own nodes, begun in LangGraph's order and joined at its barriers, so a run leaves the
same record either way. Most of a small model's rollout would otherwise be channels, checkpoints and callbacks that
nobody reads: `unwatched` says when that is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config
from langgraph.types import Command, Send

from jade_graph.workflow import blackboard
from jade_graph.workflow.nodes import JUDGE, SELECT, Workflow
from jade_graph.workflow.retrying import tried
from jade_graph.workflow.state import State

_AROUND = "__pregel_"  # what LangGraph adds to the configuration of its nodes


def unwatched(config: RunnableConfig | None) -> bool:
    """Whether nothing that LangGraph does beside running the nodes would be seen: no callbacks (LangSmith's among
    them), no graph around this one, no bound on how many nodes run at once.
    """
    known = ensure_config(config)
    if known.get("max_concurrency") is not None or _around(known):
        return False
    manager = get_async_callback_manager_for_config(known)
    return not manager.handlers and not manager.inheritable_handlers


def within_graph(config: RunnableConfig | None) -> bool:
    """Whether a LangGraph node is calling."""
    return _around(ensure_config(config))


def _around(known: RunnableConfig) -> bool:
    return any(key.startswith(_AROUND) for key in known["configurable"])


async def march(flow: Workflow, given: Mapping[str, Any], steps: int) -> None:
    """Take a run from its question to its end, in at most `steps` supersteps.

    Raises whatever a node raises; `RecursionError` where no end is in sight, which only a loop of a third party makes.
    """
    state: State = {**given, "trace": {}}  # type: ignore[typeddict-item]
    sends: list[Send] = []
    named = [SELECT]  # a node that several wake runs once
    for _ in range(steps):
        if named == [flow.last] and not sends:
            if flow.last == JUDGE:
                await flow.judge(state)
            await flow.finish(state)
            return
        # LangGraph begins what was sent before what was woken, and hears the woken first.
        begun = [_acted(flow, send) for send in sends]
        done = await _together([*begun, *(flow.select(state) for name in named if name == SELECT)])
        done = [*done[len(begun) :], *done[: len(begun)]]
        if not done:
            raise RuntimeError("the graph stopped without an end: no branch is running and none woke `select`")
        await asyncio.sleep(0)  # others have their turn, and a cancelled run goes no further, as in LangGraph
        sends, named = [], []
        for command in done:
            update = command.update if isinstance(command.update, dict) else {}
            if nodes := update.get("trace"):
                state["trace"] = blackboard.merge_trace(state["trace"], nodes)
            onward: Any = command.goto
            for goto in onward if isinstance(onward, list | tuple) else [onward]:
                if isinstance(goto, Send):
                    sends.append(goto)
                elif goto not in named:
                    named.append(goto)
    raise RecursionError(f"the run took more than {steps} steps")


def _acted(flow: Workflow, send: Send) -> Coroutine[Any, Any, Command[str]]:
    """The node that a branch was sent to; a tool is tried again as LangGraph would."""
    part = flow.part(send.node)
    if send.node in flow.tools:
        return tried(flow.actor.retry, partial(flow.act, part, send.arg))
    return flow.act(part, send.arg)


async def _together(work: list[Coroutine[Any, Any, Command[str]]]) -> list[Command[str]]:
    """All of them at once; the first to raise ends the others."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
