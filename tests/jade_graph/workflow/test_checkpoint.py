"""Checkpoints: resumed in another graph object, and unable to bring back anything but our own values."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.types import Counters, Passage, Plan, Question, Status, TraceNode
from jade_graph.workflow.checkpoint import safe_serializer


def decomposing(scripted: Any) -> Any:
    return scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'QR,R,DS,AG'}</workflow>")


async def test_a_run_resumes_from_any_checkpoint(scripted: Any, passages: Any) -> None:
    """Time travel: from every checkpoint of a run, another graph object reaches the same answer."""
    saver = InMemorySaver()
    graph = JadeGraph(decomposing(scripted), retriever=passages, checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    out = await graph.graph.ainvoke({"question": "Which is older?"}, config)
    assert out["status"] == "answered"
    history = [s async for s in graph.graph.aget_state_history(config)]
    assert len(history) > 8
    for snapshot in history[1:-1]:
        other = JadeGraph(decomposing(scripted), retriever=passages, checkpointer=saver)
        resumed = await other.graph.ainvoke(None, snapshot.config)
        assert (resumed["status"], resumed["answer"]) == ("answered", out["answer"])


async def test_interrupt_before_a_role_and_go_on(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    await graph.graph.ainvoke({"question": "Who?"}, config, interrupt_before=["AG"])
    assert (await graph.graph.aget_state(config)).next == ("AG",)
    out = await graph.graph.ainvoke(None, config)
    assert out["answer"] == "Ann Lee"


async def test_a_further_question_on_a_thread_is_a_run_of_its_own(scripted: Any, passages: Any, tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(
            scripted(AG=lambda a: f"<answer>about {a.view.question}</answer>"),
            retriever=passages,
            checkpointer=InMemorySaver(),
            recorder=store,
        )
        config = {"configurable": {"thread_id": "chat"}}
        first = await graph.graph.ainvoke({"question": "first?"}, config)
        for question in ("second?", "second?"):
            out = await graph.graph.ainvoke({"question": question}, config)
            assert out["answer"] == f"about {question}"
            assert out["run_id"] != first["run_id"]
        named = await graph.graph.ainvoke({"question": "third?", "run_id": "mine"}, config)
        assert named["run_id"] == "mine"
        await store.flushed()
        assert store.count() == 4
        assert store.get(first["run_id"]).answer == "about first?"
        assert store.get("mine").counters.rounds == 1


async def test_resuming_elsewhere_keeps_record_budget_and_identity(
    scripted: Any, passages: Any, tmp_path: Path
) -> None:
    """Another process goes on from a checkpoint: a new attempt that holds the whole run, nothing spent twice."""
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}
    asked = {"question": "Who?", "question_id": "Q7", "run_id": "R", "seed": 42}
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, checkpointer=saver, recorder=store)
        await graph.graph.ainvoke(asked, config, interrupt_before=["AG"])
        await store.flushed()
        other = JadeGraph(scripted(), retriever=passages, checkpointer=saver, recorder=store)
        out = await other.graph.ainvoke(None, config)
        await store.flushed()
        run = store.get("R")
    assert out["answer"] == "Ann Lee"
    assert (run.question_id, run.seed, run.attempt, run.status) == ("Q7", 42, 1, "answered")
    assert [(t.seq, t.role, t.attempt) for t in run.transitions] == [(0, "PL", 1), (1, "R", 1), (2, "AG", 1)]
    assert (run.counters.rounds, run.counters.retrievals, run.counters.calls) == (1, 1, 2)


def test_our_values_come_back() -> None:
    serializer = safe_serializer()
    for value in (TraceNode("0", "q", status=Status.SOLVED), Counters(1, 2), Plan(("R", "AG"))):
        assert serializer.loads_typed(serializer.dumps_typed(value)) == value


def test_foreign_types_do_not() -> None:
    """A value of a type that nobody allowed comes back as plain data; its class is not called."""
    question = Question("q", "Who?")
    payload = safe_serializer(Question).dumps_typed(question)
    assert isinstance(safe_serializer(Question).loads_typed(payload), Question)
    assert not isinstance(safe_serializer().loads_typed(payload), Question)


OLD = (
    "hKhjb3VudGVyc8dkApOwamFkZV9ncmFwaC50eXBlc6hDb3VudGVyc4amcm91bmRzAq1zdWJfcXVlc3Rpb25zAKpyZXRyaWV2YWxzAKVjYWxscwCtcHJv"
    "bXB0X3Rva2VucwCtYWN0aW9uX3Rva2VucwCkbm9kZceYApOwamFkZV9ncmFwaC50eXBlc6lUcmFjZU5vZGWLomlkoTCocXVlc3Rpb26icT+mcGFyZW50"
    "wKVkZXB0aACmc3RhdHVzxyAAk7BqYWRlX2dyYXBoLnR5cGVzplN0YXR1c6Zzb2x2ZWSocmVzb2x2ZWSgpmFuc3dlcqF4pHBsYW6gpW9yZGVywKhjaGls"
    "ZHJlbpClZXJyb3LApHBsYW7HJAKTsGphZGVfZ3JhcGgudHlwZXOkUGxhboGlc3RlcHOSoVKiQUencGFzc2FnZcdLApOwamFkZV9ncmFwaC50eXBlc6dQ"
    "YXNzYWdlhaJpZKFwpHRleHSkdGV4dKV0aXRsZaFUpXNjb3Jlyz/gAAAAAAAAqG1ldGFkYXRhgA=="
)
"""Written when `jade_graph.types` was one module."""


def test_what_was_written_before_the_words_had_rooms_comes_back() -> None:
    read = safe_serializer().loads_typed(("msgpack", base64.b64decode(OLD)))
    assert read == {
        "counters": Counters(rounds=2),
        "node": TraceNode("0", "q?", status=Status.SOLVED, answer="x"),
        "plan": Plan(("R", "AG")),
        "passage": Passage("p", "text", "T", 0.5),
    }
