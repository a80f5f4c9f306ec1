"""The state machine: one compiled LangGraph for every question; the plan is state.

Invariant: nothing is compiled per question, and every edge that a run may take is declared: what is drawn is what runs.

    START -> (begin ->) select -> PL -> QDS | QDP | QR -> R -> DS -> AG -> select -> .. -> AS -> select -> finish -> END

`select` starts a round on every sub-question that is ready (Send: parallel ones at once), each round carries its own
working memory from node to node as the Send payload, and recursion is the loop through `select`. Where the preset names
a loop (`jade_graph.workflow.loops`), its edges take the place of the plan's steps, and a new turn that of a new round.
"""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from jade_graph.types import Role, Tool
from jade_graph.workflow import loops
from jade_graph.workflow.checkpoint import secured
from jade_graph.workflow.invocation import DrivenGraph, Keeper, driven
from jade_graph.workflow.nodes import APPROVE, BEGIN, FINISH, JUDGE, SELECT, Workflow
from jade_graph.workflow.state import Branch, Input, Output, State


def _entry(state: State) -> str:
    return BEGIN if state.get("trace") else SELECT


def build(flow: Workflow) -> StateGraph[Any, Any, Any, Any]:
    """The graph of these parts, not yet compiled: one node a role or tool, named by its code."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State, input_schema=Input, output_schema=Output)
    parts: dict[str, Role | Tool] = {**flow.roles, **flow.tools}
    starts = [flow.planner.code] if flow.planner else []
    starts += [p.steps[0] for p in (flow.plan, flow.sub_plan) if p is not None]
    starts += [flow.summarizer.code] if flow.summarizer else []
    starts += [loops.codes(flow.loop)[0]] if flow.loop else []
    graph.add_node(SELECT, flow.select, destinations=(*dict.fromkeys(starts), flow.last))
    follows = _follows(flow)
    for code, part in parts.items():
        graph.add_node(
            code,
            _node(flow, part),
            input_schema=Branch,
            retry_policy=flow.actor.retry if code in flow.tools else None,
            destinations=(*follows.get(code, ()), SELECT),
            metadata={"jade_kind": getattr(part, "kind", "tool"), "title": part.name},
        )
    if flow.approve and flow.planner is not None:
        onward = (*dict.fromkeys(p.steps[0] for p in flow.grammar.plans), SELECT)
        graph.add_node(APPROVE, _asks(flow), input_schema=Branch, destinations=onward)
    if flow.judging is not None:
        graph.add_node(JUDGE, flow.judge, metadata={"jade_roles": list(flow.judging.asks)})
        graph.add_edge(JUDGE, FINISH)
    graph.add_node(FINISH, flow.finish)
    graph.add_node(BEGIN, flow.begin)
    graph.add_conditional_edges(START, _entry, [BEGIN, SELECT])
    graph.add_edge(BEGIN, SELECT)
    graph.add_edge(FINISH, END)
    return graph


def compile_graph(flow: Workflow, keeper: Keeper, checkpointer: Any = None) -> DrivenGraph:
    return driven(build(flow).compile(checkpointer=secured(checkpointer), name=flow.preset.name), keeper)


def _node(flow: Workflow, part: Role | Tool) -> Any:
    if part.code in flow.tools:  # LangGraph tries it again; which try it is decides what is recorded

        async def node(state: Branch, runtime: Runtime) -> Command[str]:
            told = runtime.execution_info
            return await flow.act(part, state, told.node_attempt if told else 1)

    else:

        async def node(state: Branch) -> Command[str]:  # type: ignore[misc]
            return await flow.act(part, state)

    node.__name__ = part.code
    return node


def _asks(flow: Workflow) -> Any:
    async def node(state: Branch) -> Command[str]:
        return await flow.ask(state)

    return node


def _follows(flow: Workflow) -> dict[str, tuple[str, ...]]:
    """Which nodes may follow which: the edges of every legal plan, or of the loop, for drawing and checking."""
    if flow.loop is not None:
        return loops.follows(flow.loop)
    plans = flow.grammar.plans
    edges: dict[str, dict[str, None]] = {}
    if flow.planner is not None:
        edges[flow.planner.code] = {p.steps[0]: None for p in plans} | ({APPROVE: None} if flow.approve else {})
    for plan in plans:
        for before, after in zip(plan.steps, plan.steps[1:], strict=False):
            edges.setdefault(before, {})[after] = None
    return {code: tuple(after) for code, after in edges.items()}
