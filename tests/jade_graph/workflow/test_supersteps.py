"""Runs that nobody watches: the same record as through LangGraph, and LangGraph wherever somebody does watch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.types import Ask, Limits, Run
from jade_graph.workflow import supersteps

THROUGH_LANGGRAPH = {"max_concurrency": 64}
PLANS = ("QDS", "QDP", "R,AG", "QR,R,DS,AG", "AG", "R,DS,AG", "no plan at all")


def erratic(ask: Ask) -> str:
    """An action drawn by where in the run it stands: serial and parallel decompositions, nested, some illegal."""
    draw = random.Random(f"{ask.question_id} {ask.role} {ask.trace_node} {ask.view.question}")
    parts = "".join(f"<q{i}>part {i} of {ask.trace_node}?</q{i}>" for i in range(1, draw.randint(2, 4)))
    return {
        "PL": f"<workflow>{draw.choice(PLANS)}</workflow>",
        "QDS": draw.choice((parts, "nothing")),
        "QDP": parts,
        "QR": "<query>again</query>",
        "DS": draw.choice(("<id>Document1</id>", "<id>Document77</id>")),
        "AG": f"<answer>{draw.randint(1, 9)}</answer>",
        "AS": f"<answer>{draw.randint(1, 9)}</answer>",
    }[ask.role]


def record(run: Run) -> tuple[Any, ...]:
    """All of a run but times."""
    rows = [replace(t, run_id="", started_ms=0, latency_ms=0, queue_ms=0) for t in run.transitions]
    return rows, run.trace, run.answer, run.status, run.error, run.error_message, run.counters, run.plan


@pytest.mark.parametrize(
    "limits",
    [
        Limits(depth=2),
        Limits(depth=1, sub_questions=2),
        Limits(depth=3, rounds=5),
        Limits(depth=2, retrievals=1),
        Limits(depth=2, tokens=150),
    ],
    ids=lambda limits: f"d{limits.depth} s{limits.sub_questions} r{limits.rounds} t{limits.tokens}",
)
@pytest.mark.parametrize("preset", ["jade", "mmoa-rag"])
async def test_the_record_is_that_of_langgraph(preset: str, limits: Limits, passages: Any) -> None:
    graph = JadeGraph(ScriptedBackbone(erratic), preset=preset, retriever=passages, limits=limits)
    shapes = set[tuple[str, ...]]()
    for i in range(25):
        about: dict[str, Any] = {"seed": i, "metadata": {"i": i}}
        plain = await graph.arun(f"question {i}?", **about)
        through = await graph.arun(f"question {i}?", **about, config=THROUGH_LANGGRAPH)
        assert record(plain) == record(through)
        shapes.add(tuple(t.role for t in plain.transitions))
    assert preset != "jade" or len(shapes) > 5


async def test_a_loop_leaves_the_same_record(passages: Any) -> None:
    said = {"KP": "a plan", "KA": "<answer>x</answer>", "KS": "<search>more</search>", "KE": "e", "KU": "u"}
    graph = JadeGraph(ScriptedBackbone(lambda ask: said[ask.role]), preset="m-ask", retriever=passages)
    plain = await graph.arun("who?", seed=1)
    through = await graph.arun("who?", seed=1, config=THROUGH_LANGGRAPH)
    assert len(plain.transitions) > 3
    assert record(plain) == record(through)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each run took."""
    taken: list[str] = []
    plain, through = supersteps.march, Pregel.ainvoke

    async def march(*args: Any) -> None:
        taken.append("plain")
        await plain(*args)

    async def invoke(self: Any, *args: Any, **options: Any) -> Any:
        if self.name == "jade":
            taken.append("langgraph")
        return await through(self, *args, **options)

    monkeypatch.setattr("jade_graph.workflow.driving.march", march)
    monkeypatch.setattr(Pregel, "ainvoke", invoke)
    return taken


async def test_who_watches_is_served_by_langgraph(
    ways: list[str], scripted: Callable[..., ScriptedBackbone], passages: Any
) -> None:
    graph = JadeGraph(scripted(), retriever=passages)

    class Watcher(BaseCallbackHandler):
        def __init__(self) -> None:
            self.nodes: list[str] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **about: Any) -> None:
            self.nodes.append(about.get("name", ""))

    await graph.arun("who?")
    await graph.arun("who?", config={"tags": ["a"], "metadata": {"b": 1}})
    await graph.ainvoke("who?")
    assert ways == ["plain"] * 3
    watcher = Watcher()
    await graph.arun("who?", config={"callbacks": [watcher]})
    await graph.ainvoke("who?", config={"callbacks": [watcher]})

    async def within(question: str) -> Run:
        return await graph.arun(question)

    await RunnableLambda(within).ainvoke("who?", config={"callbacks": [watcher]})
    assert ways[3:] == ["langgraph"] * 3
    assert {"select", "PL", "AG"} <= set(watcher.nodes)
    events = [e async for e in graph.astream_events("who?", version="v2")]
    assert ways[6:] == ["langgraph"]
    assert any(e["name"] == "AG" for e in events)
    kept = JadeGraph(scripted(), retriever=passages, checkpointer=InMemorySaver())
    await kept.arun("who?", config={"configurable": {"thread_id": "1"}})
    assert ways[7:] == ["langgraph"]


async def test_a_graph_around_this_one_sees_it(
    ways: list[str], scripted: Callable[..., ScriptedBackbone], passages: Any
) -> None:
    graph = JadeGraph(scripted(), retriever=passages)

    async def node(state: dict[str, str]) -> dict[str, str]:
        return {"answer": (await graph.arun(state["question"])).answer}

    around: Any = StateGraph(dict)
    around.add_node("ask", node)
    around.add_edge(START, "ask")
    around.add_edge("ask", END)
    await around.compile().ainvoke({"question": "who?"})
    assert ways == ["langgraph"]


async def test_a_run_that_is_cancelled_is_recorded_as_such(scripted: Callable[..., ScriptedBackbone]) -> None:
    class Never:
        corpus_id = "never"

        async def search(self, query: str, k: int) -> list[Any]:
            await asyncio.sleep(60)
            return []

    seen: list[Any] = []
    begun = asyncio.Event()

    def on_event(event: Any) -> None:
        seen.append(event)
        begun.set()

    graph = JadeGraph(scripted(PL="<workflow>QDP</workflow>"), retriever=Never())
    task = asyncio.ensure_future(graph.arun("who?", on_event=on_event))
    await asyncio.wait_for(begun.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen[-1].kind == "end"
    assert seen[-1].run.error == "CANCELLED"


async def test_a_fault_of_the_graph_ends_the_run_with_its_name(
    scripted: Callable[..., ScriptedBackbone], passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError("by nothing")

    graph = JadeGraph(scripted(PL="<workflow>QDP</workflow>"), retriever=passages)
    monkeypatch.setattr("jade_graph.workflow.blackboard.solve", broken)
    run = await graph.arun("who?")
    assert (run.status, run.error, run.error_message) == ("failed", "INTERNAL", "ZeroDivisionError: by nothing")
