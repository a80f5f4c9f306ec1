"""Claims: a run that waits is gone on with by one process, and by another once that one has ended, however it did."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from jade_graph import JadeGraph, RunStore
from jade_graph.errors import UsageError
from jade_graph.types import Claims, Passage
from jade_graph.workflow.checkpoint import secured

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Outer(TypedDict, total=False):
    question: str
    answer: str


class Gate:
    """A retriever that waits until it is let."""

    corpus_id = "gate"

    def __init__(self) -> None:
        self.searching, self.may = asyncio.Event(), asyncio.Event()

    async def search(self, query: str, k: int) -> list[Passage]:
        self.searching.set()
        await self.may.wait()
        return [Passage("p", f"about {query}")]


@asynccontextmanager
async def process(folder: Path, scripted: Any, gate: Gate, kind: str) -> AsyncIterator[tuple[Any, RunStore]]:
    """What a process has of its own: store, checkpointer and graph, over files that all share."""
    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        with RunStore(folder / "runs.db") as store:
            mine = secured(saver)
            graph = JadeGraph(scripted(), retriever=gate, approve="root", checkpointer=mine, recorder=store)
            if kind == "alone":
                yield graph, store
                return
            outer = StateGraph(Outer)
            outer.add_node("ask", graph.graph)
            outer.add_edge(START, "ask")
            outer.add_edge("ask", END)
            yield outer.compile(checkpointer=mine), store


@pytest.mark.parametrize("kind", ["alone", "node"])
async def test_of_two_resumes_in_two_processes_one_is_refused(scripted: Any, tmp_path: Path, kind: str) -> None:
    gate = Gate()
    async with process(tmp_path, scripted, gate, kind) as (asker, store):
        await asker.ainvoke("Who?" if kind == "alone" else {"question": "Who?"}, THREAD)
        await store.flushed()
    async with (
        process(tmp_path, scripted, gate, kind) as (one, _),
        process(tmp_path, scripted, gate, kind) as (other, store),
    ):
        first = asyncio.create_task(one.ainvoke(Command(resume=True), THREAD))
        await gate.searching.wait()
        with pytest.raises(UsageError) as refused:
            await other.ainvoke(Command(resume=False), THREAD)
        # By what the checkpoint holds by now: it is written while the next step goes on.
        assert refused.value.error_code in ("RUN_UNDER_WAY", "NOTHING_WAITS")
        gate.may.set()
        assert (await first)["answer"] == "Ann Lee"
        await store.flushed()
        (run,) = store.iter_runs()
        assert (run.status, run.attempt, [t.role for t in run.transitions]) == ("answered", 1, ["PL", "R", "AG"])


async def test_who_asked_and_another_process_do_not_both_go_on(scripted: Any, tmp_path: Path) -> None:
    gate = Gate()
    async with (
        process(tmp_path, scripted, gate, "alone") as (asker, _),
        process(tmp_path, scripted, gate, "alone") as (other, store),
    ):
        await asker.ainvoke("Who?", THREAD)
        going = asyncio.create_task(other.ainvoke(Command(resume=True), THREAD))
        await gate.searching.wait()
        with pytest.raises(UsageError, match=r"RUN_UNDER_WAY|NOTHING_WAITS"):  # by what the checkpoint holds by now
            await asker.ainvoke(Command(resume=True), THREAD)
        gate.may.set()
        assert (await going)["status"] == "answered"
        await store.flushed()
        (run,) = store.iter_runs()
        assert [t.role for t in run.transitions] == ["PL", "R", "AG"]
        with pytest.raises(UsageError, match="NOTHING_WAITS"):
            await asker.ainvoke(Command(resume=True), THREAD)


HOLDER = """
import sys, time
from jade_graph.runs.store import RunStore
store = RunStore(sys.argv[1])
assert store.claim("r") is not None
print("taken", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunStore]:
    if request.param == "sqlite":
        return lambda: RunStore(tmp_path / "runs.db")
    url = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+psycopg:")
    return lambda: RunStore(url)


def test_a_claim_is_one_process_s_until_it_is_let_go(shared: Callable[[], RunStore]) -> None:
    with shared() as one, shared() as other:
        assert isinstance(one, Claims)
        let = one.claim("r")
        assert let is not None
        assert [one.claim("r"), other.claim("r")] == [None, None]
        assert other.claim("another") is not None
        let()
        again = one.claim("r")  # before the other could have it: what was recorded may not be written yet
        assert again is not None
        let()  # of the first claim: lets nothing go
        one.flush()
        assert other.claim("r") is None
        again()
        one.flush()
        assert other.claim("r") is not None


def test_a_claim_dies_with_its_process(shared: Callable[[], RunStore]) -> None:
    with shared() as store:
        with subprocess.Popen([sys.executable, "-c", HOLDER, store.url], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"taken\n"
            assert store.claim("r") is None
            os.kill(holder.pid, signal.SIGKILL)
        let = None
        while let is None:  # PostgreSQL hears of it a moment later
            time.sleep(0.02)
            let = store.claim("r")
        let()


def test_nothing_is_left_of_claims_that_were_let_go(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        let = store.claim("r")
        assert let is not None
        assert (tmp_path / "runs.db-claims").is_dir()
        let()
        store.flush()
        assert not (tmp_path / "runs.db-claims").exists()


def test_a_store_that_cannot_claim_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "read-only")))
        assert store.claim("r") is not None
