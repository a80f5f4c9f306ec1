"""The graph inside LangGraph: as a node, with a person in between, over checkpointers, resumed elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from jade_graph import JadeGraph, Limits, Question, RunStore
from jade_graph.errors import UsageError
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.workflow.checkpoint import SafeSerializer, secured

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Outer(TypedDict, total=False):
    question: str
    answer: str
    status: str


def around(graph: JadeGraph, kind: str, checkpointer: Any = None) -> Any:
    async def ask(state: Outer) -> Outer:
        out = await graph.ainvoke(state["question"])
        return {"answer": out["answer"], "status": out["status"]}

    outer = StateGraph(Outer)
    outer.add_node("ask", ask if kind == "called" else graph.graph)
    outer.add_edge(START, "ask")
    outer.add_edge("ask", END)
    return outer.compile(checkpointer=checkpointer)


# --- as a part of a larger graph --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["called", "node"])
async def test_as_a_subgraph_its_nodes_are_seen(scripted: Any, passages: Any, kind: str) -> None:
    app = around(JadeGraph(scripted(), retriever=passages), kind)
    assert (await app.ainvoke({"question": "Who?"}))["answer"] == "Ann Lee"
    seen = [(ns, list(u)) async for ns, u in app.astream({"question": "Who?"}, stream_mode="updates", subgraphs=True)]
    inner = [nodes[0] for ns, nodes in seen if ns]
    assert inner == ["select", "PL", "R", "AG", "select", "finish"]
    names = {e["name"] async for e in app.astream_events({"question": "Who?"}) if e["event"] == "on_chain_end"}
    assert {"ask", "jade", "PL", "AG"} <= names


# --- a person in between ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "roles", "error"),
    [
        (True, ["R", "AG"], None),
        ("approve", ["R", "AG"], None),
        ({"plan": "qr, r, ag"}, ["QR", "R", "AG"], None),
        ("QR,R,AG", ["QR", "R", "AG"], None),
        (False, [], "PLAN_REJECTED"),
        ("reject", [], "PLAN_REJECTED"),
    ],
)
async def test_a_plan_is_approved_replaced_or_rejected(
    scripted: Any, passages: Any, said: Any, roles: list[str], error: str | None
) -> None:
    graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver())
    waiting = await graph.ainvoke("Who?", THREAD)
    (asked,) = waiting["interrupts"]
    assert (waiting["status"], asked["plan"], asked["question"]) == ("waiting", "R,AG", "Who?")
    assert "QR,R,AG" in asked["legal_plans"]
    out = await graph.ainvoke(Command(resume=said), THREAD)
    assert (out["error"], [s["role"] for s in out["steps"]]) == (error, roles)
    assert out["run_id"] == waiting["run_id"]


async def test_an_illegal_answer_is_asked_for_again(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver())
    await graph.ainvoke("Who?", THREAD)
    for wrong in ("DS,AG", 7):
        again = await graph.ainvoke(Command(resume=wrong), THREAD)
        assert again["status"] == "waiting"
        assert repr(wrong) in again["interrupts"][0]["problem"]
    assert (await graph.ainvoke(Command(resume=True), THREAD))["answer"] == "Ann Lee"


async def test_all_plans_can_be_asked_for(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'R,AG'}</workflow>")
    graph = JadeGraph(backbone, retriever=passages, approve="all", checkpointer=InMemorySaver())
    out, asked = await graph.ainvoke("Who?", THREAD), []
    while out["status"] == "waiting":
        asked.append(out["interrupts"][0]["trace_node"])
        out = await graph.ainvoke(Command(resume=True), THREAD)
    assert asked == ["0", "0.1", "0.2"]
    assert out["answer"] == "1950"


async def test_the_deadline_waits_for_the_person(scripted: Any, passages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("jade_graph.workflow.context.time.monotonic", lambda: now[0])
    graph = JadeGraph(
        scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver(), limits=Limits(deadline_s=5)
    )
    await graph.ainvoke("Who?", THREAD)
    now[0] += 3600
    assert (await graph.ainvoke(Command(resume=True), THREAD))["status"] == "answered"


async def test_a_run_whose_plan_was_replaced_says_so_and_is_not_scored(
    scripted: Any, passages: Any, tmp_path: Path
) -> None:
    question = Question("q", "Who?", ("Ann Lee",))
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver(), recorder=store)
        for thread, said, scored in (("a", True, True), ("b", "R,AG", True), ("c", "QR,R,AG", False)):
            config: Any = {"configurable": {"thread_id": thread}}
            waiting = await graph.ainvoke(question, config)
            await graph.ainvoke(Command(resume=said), config)
            run = store.get(waiting["run_id"])
            assert run.status == "answered"
            assert run.plan == ("R,AG" if scored else "QR,R,AG")
            assert (score_run(run, question, RewardSpec()).outcome is not None) is scored
    assert run.metadata["replaced_plans"] == {"0": ["R,AG", "QR,R,AG"]}


@pytest.mark.parametrize("kind", ["called", "node"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_graph_around_it_is_interrupted_and_resumed(
    scripted: Any, passages: Any, tmp_path: Path, kind: str, elsewhere: bool
) -> None:
    """The person is asked through the outer graph; another process can go on, with one run on record."""
    saver = secured(InMemorySaver())

    def build() -> Any:
        graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver(), recorder=store)
        return around(graph, kind, saver)

    with RunStore(tmp_path / "runs.db") as store:
        app = build()
        (asked,) = (await app.ainvoke({"question": "Who?"}, THREAD))["__interrupt__"]
        assert asked.value["plan"] == "R,AG"
        out = await (build() if elsewhere else app).ainvoke(Command(resume="QR,R,AG"), THREAD)
        assert out["answer"] == "Ann Lee"
        await store.flushed()
        (run,) = store.iter_runs()
        assert (run.status, run.plan, [t.role for t in run.transitions]) == (
            "answered",
            "QR,R,AG",
            ["PL", "QR", "R", "AG"],
        )


async def test_nothing_waits_on_another_thread(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver())
    with pytest.raises(UsageError, match="NOTHING_WAITS"):
        await graph.ainvoke(Command(resume=True), {"configurable": {"thread_id": "none"}})


# --- checkpointers ----------------------------------------------------------------------------------------------------
@asynccontextmanager
async def saver_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Any]:
    if kind == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
            yield saver
    else:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        async with AsyncPostgresSaver.from_conn_string(request.getfixturevalue("postgres_url")) as saver:
            await saver.setup()
            yield saver


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_databases_keep_a_run_that_another_graph_goes_on_with(
    scripted: Any, passages: Any, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    async with saver_of(kind, request, tmp_path) as saver:
        graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=saver)
        assert isinstance(saver.serde, SafeSerializer)
        waiting = await graph.ainvoke("Who?", THREAD)
    async with saver_of(kind, request, tmp_path) as saver:
        other = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=saver)
        out = await other.ainvoke(Command(resume=True), THREAD)
        assert (out["run_id"], out["answer"]) == (waiting["run_id"], "Ann Lee")
        # Time travel: from the moment before the answer, the same answer again.
        states = [s async for s in other.graph.aget_state_history(THREAD)]
        before = next(s for s in states if s.next == ("AG",))
        again = await other.graph.ainvoke(None, before.config)
        assert (again["status"], again["answer"]) == ("answered", "Ann Lee")
        kinds = {type(node).__name__ for s in states for node in s.values.get("trace", {}).values()}
        assert kinds == {"TraceNode"}


async def test_without_a_thread_the_runs_id_names_it(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, checkpointer=InMemorySaver())
    out = await graph.ainvoke("Who?")
    state = await graph.graph.aget_state({"configurable": {"thread_id": out["run_id"]}})
    assert state.values["answer"] == "Ann Lee"


# --- who answers, and when --------------------------------------------------------------------------------------------
def parallel(scripted: Any, passages: Any, **more: Any) -> JadeGraph:
    """A graph in which two sub-questions wait for a person at once."""
    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>")
    return JadeGraph(backbone, retriever=passages, approve="all", checkpointer=InMemorySaver(), **more)


@pytest.mark.parametrize("said", [True, "approve", {"approve": True}, None])
@pytest.mark.parametrize("way", ["invoke", "aresume"])
async def test_a_plain_yes_approves_all_that_waits(scripted: Any, passages: Any, said: Any, way: str) -> None:
    graph = parallel(scripted, passages)
    await graph.ainvoke("Who?", THREAD)
    two = await graph.ainvoke(Command(resume=True), THREAD)
    assert [a["trace_node"] for a in two["interrupts"]] == ["0.1", "0.2"]
    assert len({a["id"] for a in two["interrupts"]}) == 2
    if way == "aresume":
        assert (await graph.aresume(said, THREAD)).answer == "1950"
    else:
        resume = Command(resume=True if said is None else said)
        assert (await graph.ainvoke(resume, THREAD))["answer"] == "1950"


@pytest.mark.parametrize("way", ["invoke", "aresume"])
async def test_an_answer_by_id_is_for_that_plan_and_the_run_waits_on(scripted: Any, passages: Any, way: str) -> None:
    graph = parallel(scripted, passages)
    await graph.ainvoke("Who?", THREAD)
    two = await graph.ainvoke(Command(resume=True), THREAD)
    first, second = (a["id"] for a in two["interrupts"])
    for wrong, code in (
        ("QR,R,AG", "RESUME_AMBIGUOUS"),
        ({"plan": "R,AG"}, "RESUME_AMBIGUOUS"),
        ({}, "RESUME_AMBIGUOUS"),
        ({"0" * 32: True}, "UNKNOWN_INTERRUPT"),
        (Command(), "BAD_RESUME"),
    ):
        resume = wrong if isinstance(wrong, Command) else Command(resume=wrong)
        with pytest.raises(UsageError, match=code):
            await (graph.aresume(wrong, THREAD) if way == "aresume" else graph.ainvoke(resume, THREAD))
    out = await graph.ainvoke(Command(resume={first: "QR,R,AG"}), THREAD)
    assert (out["status"], [a["id"] for a in out["interrupts"]]) == ("waiting", [second])
    run = await graph.aresume({second: False}, THREAD)
    assert run.status == "answered"
    assert [(t.trace_node, t.role) for t in run.transitions if t.role == "QR"] == [("0.1", "QR")]
    assert {n.id: n.error for n in run.trace}["0.2"] == "PLAN_REJECTED"


def once_each(run: Any) -> bool:
    places = [(t.trace_node, t.round, t.step) for t in run.transitions]
    return len(places) == len(set(places)) and len({t.seq for t in run.transitions}) == len(places)


@pytest.mark.parametrize("kind", ["alone", "called", "node"])
async def test_of_two_resumes_at_once_one_is_refused(scripted: Any, passages: Any, tmp_path: Path, kind: str) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver(), recorder=store)
        app = graph if kind == "alone" else around(graph, kind, secured(InMemorySaver()))
        await app.ainvoke("Who?" if kind == "alone" else {"question": "Who?"}, THREAD)
        told = await asyncio.gather(*(app.ainvoke(Command(resume=s), THREAD) for s in (True, False, True)),
                                    return_exceptions=True)  # fmt: skip
        errors = [t for t in told if isinstance(t, BaseException)]
        assert [e.error_code for e in errors if isinstance(e, UsageError)] == ["RUN_UNDER_WAY"] * 2
        (ended,) = (t for t in told if not isinstance(t, BaseException))
        await store.flushed()
        (run,) = store.iter_runs()
        assert (run.status, run.answer, once_each(run)) == ("answered", ended["answer"], True)
        assert [t.role for t in run.transitions] == ["PL", "R", "AG"]


class Slow:
    """A retriever that tells when it searches, and never ends."""

    corpus_id = "slow"

    def __init__(self) -> None:
        self.searching = asyncio.Event()

    async def search(self, query: str, k: int) -> list[Any]:
        self.searching.set()
        await asyncio.Event().wait()
        return []


@pytest.mark.parametrize("how", ["cancelled", "step_timeout", "neighbour", "left", "between"])
@pytest.mark.parametrize("kind", ["called", "node"])
async def test_whatever_ends_an_invocation_ends_the_run(scripted: Any, tmp_path: Path, kind: str, how: str) -> None:
    slow = Slow()
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=slow, recorder=store)

        async def ask(state: Outer) -> Outer:
            out = await graph.ainvoke(state["question"])
            return {"answer": out["answer"]}

        async def fails(state: Outer) -> Outer:
            await slow.searching.wait()
            raise ValueError("the neighbour's")

        outer = StateGraph(Outer)
        outer.add_node("ask", ask if kind == "called" else graph.graph)
        outer.add_edge(START, "ask")
        if how == "neighbour":
            outer.add_node("fails", fails)
            outer.add_edge(START, "fails")
        app = outer.compile()
        app.step_timeout = 0.3 if how == "step_timeout" else None
        if how == "left":
            async for _ in app.astream({"question": "Who?"}, stream_mode="updates", subgraphs=True):
                break
        elif how == "between":
            config: Any = {"callbacks": [Broken()]}
            with pytest.raises(RuntimeError, match="a tracer's") if kind == "node" else contextlib.nullcontext():
                await app.ainvoke({"question": "Who?"}, config)
        else:
            task = asyncio.create_task(app.ainvoke({"question": "Who?"}))
            if how == "cancelled":
                await slow.searching.wait()
                task.cancel()
            with pytest.raises((asyncio.CancelledError, TimeoutError, ValueError)):
                await task
        for _ in range(100):
            if not graph.engine.contexts.running:
                break
            await asyncio.sleep(0.01)
        await store.flushed()
        (row,) = store.list_runs()
        assert (row["status"], graph.engine.contexts.running) == ("failed", {})
        assert row["error"] == ("INTERNAL" if how == "between" else "CANCELLED")


class Broken(BaseCallbackHandler):
    """A handler whose own failure ends the invocation while no node is at work."""

    raise_error = True
    run_inline = True

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        if kwargs.get("name", "") == "PL" or (isinstance(outputs, Command) and outputs.goto):
            raise RuntimeError("a tracer's")


@pytest.mark.parametrize(
    ("kind", "elsewhere"),  # what another process asked, only the checkpointer knows
    [("alone", False), ("alone", True), ("graph", False), ("called", False), ("node", False)],
)
async def test_a_new_question_on_a_thread_ends_the_run_that_waits_there(
    scripted: Any, passages: Any, tmp_path: Path, kind: str, elsewhere: bool
) -> None:
    inner, saver = InMemorySaver(), secured(InMemorySaver())

    def build() -> Any:
        graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=inner, recorder=store)
        if kind in ("alone", "graph"):
            return graph if kind == "alone" else graph.graph
        return around(graph, kind, saver)

    with RunStore(tmp_path / "runs.db") as store:
        app, question = build(), "Who?" if kind == "alone" else {"question": "Who?"}
        await app.ainvoke(question, THREAD)
        other: Any = {"configurable": {"thread_id": "another"}}
        await app.ainvoke(question, other)
        await (build() if elsewhere else app).ainvoke(question, THREAD)
        await store.flushed()
        rows = sorted((r["status"], r["error"]) for r in store.list_runs())
        assert rows == [("failed", "CANCELLED"), ("running", None), ("running", None)]
        for config in (THREAD, other):
            await app.ainvoke(Command(resume=True), config)
        await store.flushed()
        assert sorted(r["status"] for r in store.list_runs()) == ["answered", "answered", "failed"]
