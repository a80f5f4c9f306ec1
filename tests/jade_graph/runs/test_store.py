"""The run store: exact round trips, crash safety, errors that nobody misses."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import StoreError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs import tables
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.recording import record_run
from jade_graph.runs.store import RunStore
from jade_graph.types import Limits, Message, Question, Run, Transition


def _transition(
    ids: tuple[int, ...] = (), logprobs: tuple[float, ...] = (), text: str = "", run_id: str = "r"
) -> Transition:
    return Transition(
        run_id=run_id, question_id="q", attempt=0, seq=0, round=1, step=0, depth=0, node="PL", trace_node="0",
        role="PL", agent_trainable=True, plan="AG", prompt_messages=(Message("user", text),), prompt_token_ids=ids,
        action_text=text, action_token_ids=ids, old_logprobs=logprobs, sampling={"seed": 1},
        finish_reason="stop", truncated=False, parsed=[text], valid=True, violation=None, fallback_used=False,
        counters_before={}, counters_after={}, latency_ms=1.5, backbone_version="v", graph_hash="g", corpus_id="c",
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with RunStore(tmp_path / "runs.db") as store:
        yield store


def test_a_run_comes_back_exactly_as_it_was(store: RunStore, scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'QR,R,DS,AG'}</workflow>")
    graph = JadeGraph(backbone, retriever=passages, recorder=store)
    run = graph.run(Question("q1", "When was the maker of X born? é漢🎬", type="2hop"))
    assert store.get(run.id) == run
    assert store.get(run.id[:10]) == run


@given(
    ids=st.lists(st.integers(0, 2**31 - 1), max_size=20),
    logprobs=st.lists(st.floats(width=32, allow_nan=False), max_size=20),
    text=st.text(),
)
def test_rows_hold_ids_and_float32_exactly(ids: list[int], logprobs: list[float], text: str) -> None:
    t = _transition(tuple(ids), tuple(logprobs), text)
    assert tables.transition_of(tables.transition_row(t)) == t


def test_failed_runs_are_recorded_too(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store, limits=Limits(tokens=5))
    run = graph.run("Q?")
    kept = store.get(run.id)
    assert (kept.status, kept.error) == ("failed", "LIMIT_TOKENS")
    assert kept.transitions[-1].error == "LIMIT_TOKENS"
    assert kept.trace[0].status.value == "failed"


def test_listing_filters_and_pages(store: RunStore, scripted: Any, passages: Any) -> None:
    jade = JadeGraph(scripted(), retriever=passages, recorder=store)
    vanilla = JadeGraph(scripted(), preset="vanilla-rag", retriever=passages, recorder=store)
    for i in range(3):
        jade.run(f"What is {i}?")
    vanilla.run("100% of _what_?")
    assert store.count() == 4
    assert [r["preset"] for r in store.list_runs(limit=1)] == ["vanilla-rag"]
    assert store.count(RunFilter(preset="jade", plan="R,AG", status="answered")) == 3
    assert [r["question"] for r in store.list_runs(RunFilter(text="0% of _"))] == ["100% of _what_?"]
    assert len(store.list_runs(limit=2, offset=3)) == 1


def test_unknown_and_ambiguous_ids(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store)
    graph.run("a?", run_id="ab1")
    graph.run("b?", run_id="ab2")
    with pytest.raises(StoreError, match=r"RUN_NOT_FOUND.*jade runs list"):
        store.get("zz")
    with pytest.raises(StoreError, match=r"RUN_AMBIGUOUS.*ab1, ab2"):
        store.get("ab")
    assert store.get("ab1").question == "a?"


def test_a_second_attempt_supersedes_the_first(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store)
    graph.run("a?", run_id="r", attempt=0)
    graph.run("a?", run_id="r", attempt=1)
    assert store.count() == 1
    assert {t.attempt for t in store.get("r").transitions} == {1}


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "apart"])
def test_a_resumed_attempt_keeps_what_went_before(store: RunStore, together: bool) -> None:
    """Whether the earlier attempt is committed already, or waits in the writer's queue with the resume."""
    gate = threading.Event()
    if together:
        store._ask(partial(gate.wait, 30))  # the writer stands still while the queue fills: all of it becomes one batch
    store.run_started(Run("r", "Q?", "", "jade", 0))
    store.transition(_transition(text="first"))
    if not together:
        store.flush()
    resumed = Run("r", "Q?", "", "jade", 0, attempt=1)
    store.run_started(resumed)
    store.run_resumed(resumed, 1)
    store.transition(replace(_transition(text="second"), attempt=1, seq=1))
    gate.set()
    store.flush()
    assert [(t.attempt, t.seq, t.action_text) for t in store.get("r").transitions] == [
        (1, 0, "first"),
        (1, 1, "second"),
    ]


def refuse(store: RunStore, run_id: str) -> None:
    """Let the database refuse this run."""
    with store.engine.begin() as db:
        db.execute(
            sa.text(
                f"CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.id = '{run_id}' "
                "BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        )


def test_a_failing_write_costs_the_record_not_the_answer(store: RunStore, scripted: Any, passages: Any) -> None:
    """The run comes back, says that it was not recorded, and its neighbours know nothing of it."""
    graph = JadeGraph(scripted(), retriever=passages, recorder=store)
    refuse(store, "bad")
    assert graph.run("a?", run_id="good").record_error is None
    lost = graph.run("a?", run_id="bad")
    assert lost.status == "answered"
    assert lost.record_error is not None
    assert "STORE_WRITE" in lost.record_error
    assert graph.run("b?").record_error is None
    assert store.count() == 2


async def test_a_failure_is_told_to_the_run_that_it_belongs_to(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store)
    refuse(store, "bad")
    good, bad = await asyncio.gather(graph.arun("b?", run_id="good"), graph.arun("a?", run_id="bad"))
    assert good.record_error is None
    assert bad.record_error is not None


async def test_a_run_that_is_cancelled_before_it_began_is_on_record(
    store: RunStore, scripted: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gave it an id looks for it under this id."""
    asked, looked = threading.Event(), store.ended

    def slow(run_id: str) -> int | None:
        asked.set()
        time.sleep(0.2)
        return looked(run_id)

    monkeypatch.setattr(store, "ended", slow)
    task = asyncio.create_task(JadeGraph(scripted(), retriever=passages, recorder=store).arun("a?", run_id="mine"))
    await asyncio.to_thread(asked.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.flush()
    assert (store.get("mine").status, store.get("mine").error) == ("failed", "CANCELLED")


def test_a_caller_that_left_does_not_stop_the_writer(tmp_path: Path, scripted: Any, passages: Any) -> None:
    """The loop that waited is closed when its rows are written: the writer goes on for everybody else."""
    path = tmp_path / "runs.db"
    with RunStore(path) as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store)
        lock = sqlite3.connect(path, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")

        async def impatient() -> None:
            async with asyncio.timeout(0.3):
                await graph.arun("a?", run_id="first")

        with pytest.raises(TimeoutError):
            asyncio.run(impatient())
        lock.rollback()
        lock.close()
        run = graph.run("b?", run_id="second")
        assert (run.status, run.record_error) == ("answered", None)
        assert store.get("first").question == "a?"


def test_a_locked_database_holds_nobody_for_long(tmp_path: Path, scripted: Any, passages: Any) -> None:
    """A batch that cannot be written fails as a whole, once: not row by row."""
    path = tmp_path / "runs.db"
    with RunStore(path, busy_timeout_s=0.2) as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store)
        lock = sqlite3.connect(path, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        run = graph.run("a?")
        assert run.status == "answered"
        assert run.record_error is not None
        assert "locked" in run.record_error
        lock.rollback()
        lock.close()
        assert graph.run("b?").record_error is None


def test_text_that_utf8_cannot_hold_is_recorded(store: RunStore, scripted: Any, passages: Any) -> None:
    run = JadeGraph(scripted(), retriever=passages, recorder=store).run("lone \ud800 surrogate?")
    assert run.record_error is None
    assert store.get(run.id).question == "lone ? surrogate?"


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        RunStore("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="memory"):
        RunStore("sqlite://")
    with RunStore(tmp_path / "odd?name.db") as store:
        assert store.count() == 0
    assert (tmp_path / "odd?name.db").exists()


def test_one_bad_row_loses_nobody_elses(store: RunStore) -> None:
    """A batch with a doubled key: the run beside it is written all the same."""
    good, bad = Run("good", "q", "", "jade", 0), Run("bad", "q", "", "jade", 0)
    for run in (bad, good):
        store.run_started(run)
    row = _transition(run_id="bad")
    store.transition(row)
    store.transition(row)
    store.transition(_transition(run_id="good"))
    with pytest.raises(StoreError, match="STORE_WRITE"):
        store.flush()
    assert len(store.get("good").transitions) == 1
    assert len(store.get("bad").transitions) == 1


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    RunStore(tmp_path / "runs.db").close()
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("UPDATE jade_store SET value = '99'")
    db.close()
    with pytest.raises(StoreError, match="STORE_SCHEMA"):
        RunStore(tmp_path / "runs.db")


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="STORE_OPEN"):
        RunStore(tmp_path / "runs.db")


def test_a_closed_store_takes_nothing_more(tmp_path: Path, scripted: Any) -> None:
    store = RunStore(tmp_path / "runs.db")
    store.close()
    with pytest.raises(StoreError, match="STORE_CLOSED"):
        store.run_started(Run("r", "q", "", "jade", 0))


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kill_9_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    """A process that dies in the middle of a run: what was flushed is there, the open run says "running"."""
    code = textwrap.dedent("""
        import asyncio, sys
        from jade_graph.backbones.scripted import ScriptedBackbone
        from jade_graph.langchain.runnable import JadeGraph
        from jade_graph.runs.store import RunStore

        store = RunStore(sys.argv[1])
        def policy(ask):
            if ask.role == "PL":
                return "<workflow>AG</workflow>"
            if ask.view.question == "second?":
                store.flush()
                print("inside", flush=True)
                import time; time.sleep(60)
            return "<answer>x</answer>"
        graph = JadeGraph(ScriptedBackbone(policy), recorder=store)
        graph.run("first?", run_id="first")
        graph.run("second?", run_id="second")
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "runs.db")], stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().strip() == b"inside"
        process.send_signal(signal.SIGKILL)
    with RunStore(tmp_path / "runs.db") as store:
        assert store.get("first").status == "answered"
        second = store.get("second")
        assert second.status == "running"
        assert [t.role for t in second.transitions] == ["PL"]
        assert second.trace[0].status.value == "running"


def test_a_run_with_an_ended_runs_id_never_replaces_its_record(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store)
    first = graph.run("Who?", run_id="r1")
    for ask in (
        lambda: graph.run("Where?", run_id="r1"),
        lambda: graph.invoke({"question": "Where?", "run_id": "r1"}),
        lambda: graph.fork(first, at=1, run_id="r1"),
        lambda: record_run("Where?", backbone=scripted(), recorder=store, run_id="r1"),
    ):
        with pytest.raises(UsageError, match="RUN_EXISTS"):
            ask()
    again = graph.run("Where?", run_id="r1", attempt=0)  # who counts attempts is stopped by the store
    assert "RUN_EXISTS" in str(again.record_error)
    assert (again.answer, store.get("r1")) == ("Ann Lee", first)
    assert graph.run("Where?", run_id="r1", attempt=1).record_error is None
    assert store.get("r1").question == "Where?"


def test_two_runs_of_one_id_in_one_batch_leave_the_first(tmp_path: Path) -> None:
    runs = [Run("r", q, "", "p", 0, "answered", answer=q, started_at=n) for n, q in enumerate(("a", "b"), 1)]
    with RunStore(tmp_path / "runs.db") as store:
        for run in runs:
            store._queue.put(("run", (replace(run, status="running"), None)))
            store._queue.put(("end", (run, None)))
        with pytest.raises(StoreError, match="RUN_EXISTS"):
            store.flush("r")
        assert store.get("r").answer == "a"
