"""Rollouts in several processes: the same runs as one would make, none lost to a death, none left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.rollouts.collecting import collect, tally
from jade_graph.rollouts.crew import Workers, _shared
from jade_graph.rollouts.processes import ProcessError
from jade_graph.rollouts.replicas import planned
from jade_graph.runs.store import RunStore
from jade_graph.types import Ask, Question, Run

QUESTIONS = [Question(f"q{i}", f"Who made film {i}?", ("Ann",)) for i in range(5)]


def answers(ask: Ask) -> str:
    return {"PL": "<workflow>AG</workflow>", "AG": f"<answer>{ask.view.question}</answer>"}[ask.role]


@contextmanager
def worker(store: Path, *, version: str = "v1", dies: bool = False, latency_s: float = 0.0) -> Iterator[JadeGraph]:
    """A graph in a process of its own."""
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    with RunStore(store) as own:
        yield JadeGraph(ScriptedBackbone(answers, version=version, latency_s=latency_s), recorder=own)


def plain(runs: list[Run]) -> list[Any]:
    return [(r.id, r.attempt, r.seed, r.answer, r.status, len(r.transitions), r.metadata) for r in runs]


async def test_the_runs_are_those_of_one_process(tmp_path: Path) -> None:
    found = []
    for name, count in (("one", 1), ("two", 2)):
        seen: list[str] = []
        with worker(tmp_path / f"{name}.db") as graph:
            workers = Workers(count, partial(worker, tmp_path / f"{name}.db"))
            runs = await collect(
                graph,
                QUESTIONS,
                rollout_id="r",
                runs_per_question=3,
                workers=workers,
                progress=lambda run, seen=seen: seen.append(run.id),
            )
            assert isinstance(graph.recorder, RunStore)
            stored = list(graph.recorder.iter_runs(ids=[r.id for r in runs]))
            told = await tally(graph, QUESTIONS, rollout_id="r", runs_per_question=3, workers=workers)
        found.append(plain(runs))
        assert sorted(seen) == sorted(r.id for r in runs) == sorted(r.id for r in stored)
        assert (told.runs, told.fresh) == (15, 0)
    assert found[0] == found[1]


def test_questions_are_dealt_out_whole() -> None:
    due = [(each, 0) for each in planned(QUESTIONS, rollout_id="r", runs_per_question=2)]
    for count in (1, 2, 9):
        shares = _shared(due, count)
        assert len(shares) == min(count, 5)
        assert sorted(each.run_id for share in shares for each, _ in share) == sorted(each.run_id for each, _ in due)
        asked = [{each.question.id for each, _ in share} for share in shares]
        assert sum(map(len, asked)) == 5


async def test_a_graph_of_other_weights_is_refused(tmp_path: Path) -> None:
    with worker(tmp_path / "s.db") as graph:
        workers = Workers(2, partial(worker, tmp_path / "s.db", version="v2"))
        with pytest.raises(UsageError, match="backbone_version") as caught:
            await collect(graph, QUESTIONS, rollout_id="r", workers=workers)
    assert caught.value.error_code == "ROLLOUT_CHANGED"
    with pytest.raises(UsageError) as bad:
        Workers(0, partial(worker, tmp_path))
    assert bad.value.error_code == "BAD_WORKERS"


async def test_a_killed_process_is_told_and_its_runs_are_made_good(tmp_path: Path) -> None:
    with worker(tmp_path / "s.db") as graph:
        with pytest.raises(ProcessError) as caught:
            await collect(
                graph, QUESTIONS, rollout_id="r", workers=Workers(2, partial(worker, tmp_path / "s.db", dies=True))
            )
        assert caught.value.error_code == "PROCESS_DIED"
        runs = await collect(graph, QUESTIONS, rollout_id="r")
    assert [r.status for r in runs] == ["answered"] * 5


async def test_a_cancelled_rollout_leaves_no_process(tmp_path: Path) -> None:
    with worker(tmp_path / "s.db") as graph:
        slow = Workers(2, partial(worker, tmp_path / "s.db", latency_s=30.0))
        task = asyncio.ensure_future(collect(graph, QUESTIONS, rollout_id="r", workers=slow))
        await asyncio.to_thread(begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not children()


def begun() -> None:
    while not children():
        time.sleep(0.01)


def children() -> list[int]:
    import multiprocessing

    return [p.pid for p in multiprocessing.active_children() if p.pid]
