"""Checkpoints: resumed in another graph object, and unable to bring back anything but our own values."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from jade_graph.checkpoint import safe_serializer
from jade_graph.engine import JadeGraph
from jade_graph.types import Counters, Plan, Question, Status, TraceNode


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
