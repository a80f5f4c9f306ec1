"""The state machine by LangGraph's own rules: step limits, what a node raises, and when a thread is written."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from jade_graph import JadeGraph, Limits, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import UsageError
from jade_graph.types import Ask, Transition

LOOPING = {"KP": "a plan", "KA": "<answer>x</answer>", "KS": "<search>more</search>", "KE": "e", "KU": "u"}


def splitting(ask: Ask) -> str:
    """Decomposes as deep as it may, then takes the longest plan."""
    plans = [str(p) for p in ask.view.plans]
    deep = ("QDP", "QDS")[len(ask.trace_node) % 2]
    return {
        "PL": f"<workflow>{deep if deep in plans else max(plans, key=len)}</workflow>",
        "QDS": "<q1>a?</q1><q2>b #1?</q2><q3>c?</q3>",
        "QDP": "<q1>a?</q1><q2>b?</q2><q3>c?</q3>",
        "QR": "<query>q</query>",
        "DS": "<id>Document0</id>",
        "AG": "<answer>x</answer>",
        "AS": "<answer>x</answer>",
    }[ask.role]


def loop(ask: Ask) -> str:
    return LOOPING[ask.role]


# --- recursion_limit --------------------------------------------------------------------------------------------------
def planned(plan: str, parts: str = "") -> Any:
    def policy(ask: Ask) -> str:
        if ask.role == "PL":
            return f"<workflow>{plan if ask.view.level == 'root' else 'R,AG'}</workflow>"
        return parts if ask.role in ("QDS", "QDP") else "<answer>x</answer>"

    return policy


@pytest.mark.parametrize(
    ("preset", "policy", "enough"),
    [
        # What LangGraph itself needs for the whole run: not a step more is asked for.
        ("jade", planned("R,AG"), 7),
        ("jade", planned("QDS", "<q1>a?</q1><q2>b #1?</q2>"), 16),
        ("jade", planned("QDP", "<q1>a?</q1><q2>b?</q2>"), 12),
        ("jade", splitting, None),
        ("mmoa-rag", splitting, None),
        ("m-ask", loop, 5),  # a loop ends with the answer in hand
    ],
)
async def test_a_recursion_limit_never_ends_a_run_without_a_name(
    preset: str, policy: Any, enough: int | None, passages: Any
) -> None:
    graph = JadeGraph(ScriptedBackbone(policy), preset=preset, retriever=passages, limits=Limits(rounds=9))
    answered = []
    for most in (3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 17, 20, 23, 26, 30, 40, 60, 90):
        out = await graph.graph.ainvoke({"question": f"q {most}?"}, {"recursion_limit": most})
        assert (out["status"], out["error"]) in {("answered", None), ("failed", "LIMIT_STEPS")}, most
        answered += [most] if out["status"] == "answered" else []
        assert not graph.engine.contexts.running
    assert answered[-1] == 90
    assert enough is None or answered[0] == enough


@pytest.mark.parametrize("most", [6, 12, 25, 90])
async def test_nor_does_that_of_a_graph_around_it(most: int, passages: Any) -> None:
    class Outer(TypedDict, total=False):
        question: str
        answer: str
        status: str
        error: str | None

    inner = JadeGraph(ScriptedBackbone(splitting), retriever=passages)
    outer = StateGraph(Outer)
    outer.add_node("ask", inner.graph)
    outer.add_edge(START, "ask")
    outer.add_edge("ask", END)
    out = await outer.compile().ainvoke({"question": "q?"}, {"recursion_limit": most})
    assert (out["status"], out["error"]) in {("answered", None), ("failed", "LIMIT_STEPS")}
    assert not inner.engine.contexts.running


@pytest.mark.parametrize(("preset", "policy"), [("jade", planned("R,AG")), ("m-ask", loop)])
async def test_every_resumption_has_the_steps_of_its_own_call(preset: str, policy: Any, passages: Any) -> None:
    about: Any = {"retriever": passages, "checkpointer": InMemorySaver(), "limits": Limits(rounds=3)}
    asked: list[str] = []

    def watched(ask: Ask) -> str:
        asked.append(ask.role)
        return str(policy(ask))

    graph = JadeGraph(ScriptedBackbone(watched), preset=preset, **about)
    thread: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 8}
    out = await graph.graph.ainvoke({"question": "q?"}, thread, interrupt_before="*")
    for _ in range(60):
        if not (await graph.graph.aget_state(thread)).next:
            break
        out = await graph.graph.ainvoke(None, thread, interrupt_before="*")
    assert (out["status"], out["answer"]) == ("answered", "x")
    piecemeal, asked[:] = asked[:], []
    await graph.arun("q?", config={"configurable": {"thread_id": "u"}})
    assert piecemeal == asked
    assert len(asked) >= 2


async def test_the_limit_that_arun_sets_is_out_of_reach(passages: Any) -> None:
    for depth, rounds, parts in itertools.product((1, 2, 3), (1, 5, 12, 40), (1, 4, 30)):
        limits = Limits(depth=depth, rounds=rounds, sub_questions=parts)
        graph = JadeGraph(ScriptedBackbone(splitting), retriever=passages, limits=limits)
        run = await graph.arun("q?", config={"max_concurrency": 64, "recursion_limit": 3})
        assert (run.status, run.error) in {("answered", None), ("failed", "LIMIT_ROUNDS")}, (limits, run.error_message)


async def test_steps_are_counted_anew_when_a_waiting_run_is_resumed(passages: Any) -> None:
    from langgraph.types import Command

    graph = JadeGraph(
        ScriptedBackbone(splitting),
        retriever=passages,
        checkpointer=InMemorySaver(),
        approve="all",
        limits=Limits(depth=1),
    )
    thread: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 40}
    out = await graph.graph.ainvoke({"question": "q?"}, thread)
    for _ in range(4):
        waiting = out["__interrupt__"]
        out = await graph.graph.ainvoke(Command(resume={i.id: True for i in waiting}), thread)
        if "__interrupt__" not in out:
            break
    assert (out["status"], out["answer"]) == ("answered", "x")


# --- what a node raises -----------------------------------------------------------------------------------------------
class Broken(RunStore):
    """A store with a bug."""

    def transition(self, transition: Transition) -> None:
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("way", ["by itself", "through langgraph", "driven directly"])
async def test_what_a_node_raises_ends_the_run_by_its_name(way: str, passages: Any, tmp_path: Any) -> None:
    with Broken(tmp_path / "runs.db") as store:
        graph = JadeGraph(ScriptedBackbone(splitting), retriever=passages, recorder=store)
        if way == "driven directly":
            out = await graph.graph.ainvoke({"question": "q?", "run_id": "r"})
            assert (out["status"], out["error"]) == ("failed", "INTERNAL")
        else:
            run = await graph.arun("q?", run_id="r", config=None if way == "by itself" else {"max_concurrency": 9})
            assert (run.status, run.error) == ("failed", "INTERNAL")
            assert "ZeroDivisionError: a bug" in run.error_message
        await store.flushed("r")
        kept = store.get("r")
        assert (kept.status, kept.error) == ("failed", "INTERNAL")
        assert not graph.engine.contexts.running


# --- durability -------------------------------------------------------------------------------------------------------
async def test_a_graph_around_it_says_when_a_nested_run_is_written(passages: Any) -> None:
    class Outer(TypedDict, total=False):
        question: str
        answer: str

    for mode, least, most in (("exit", 1, 1), ("async", 3, 99)):
        inner = JadeGraph(
            ScriptedBackbone(planned("R,AG")), retriever=passages, checkpointer=InMemorySaver(), durability="sync"
        )

        async def ask(state: Outer, inner: JadeGraph = inner) -> Outer:
            return {"answer": (await inner.arun(state["question"])).answer}

        outer, saver = StateGraph(Outer), InMemorySaver()
        outer.add_node("ask", ask)
        outer.add_edge(START, "ask")
        graph = outer.compile(checkpointer=saver)
        thread: Any = {"configurable": {"thread_id": "t"}}
        out = await graph.ainvoke({"question": "q?"}, thread, durability=mode)  # type: ignore[call-overload]
        assert out["answer"] == "x"
        assert least <= len([c async for c in saver.alist(None)]) <= most


async def test_a_thread_is_written_as_often_as_asked(passages: Any) -> None:
    written = {}
    for mode in ("sync", "async", "exit", None):
        saver = InMemorySaver()
        graph = JadeGraph(
            ScriptedBackbone(splitting), retriever=passages, checkpointer=saver, durability=mode, limits=Limits(depth=1)
        )
        thread: Any = {"configurable": {"thread_id": "t"}}
        run = await graph.arun("q?", config=thread)
        assert run.status == "answered"
        written[mode] = len([c async for c in saver.alist(thread)])
        assert (await graph.graph.aget_state(thread)).values["answer"] == "x"
    assert written["exit"] == 1
    assert written["sync"] == written["async"] == written[None] > 5


def test_an_unknown_durability_is_refused(passages: Any) -> None:
    with pytest.raises(UsageError, match="BAD_DURABILITY") as caught:
        JadeGraph(ScriptedBackbone(splitting), retriever=passages, durability="eventually")  # type: ignore[arg-type]
    assert "exit" in str(caught.value)
