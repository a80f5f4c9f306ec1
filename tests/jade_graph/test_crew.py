"""Rollouts in several processes: the same runs as one would make, none lost to a death, none left behind."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jade_graph import processes
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.crew import Workers, _shared
from jade_graph.engine import JadeGraph
from jade_graph.errors import BackboneError, JadeError, UsageError
from jade_graph.processes import ProcessError, Processes, Tell
from jade_graph.replicas import planned
from jade_graph.rollouts import collect, tally
from jade_graph.store import RunStore
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


# --- processes --------------------------------------------------------------------------------------------------------
def counts(n: int, tell: Tell) -> None:
    for i in range(n):
        tell(i)


def fails(tell: Tell) -> None:
    raise BackboneError("no model 'x'.", code="BACKBONE_NOT_FOUND", known=["y"], hint="y")


class OddError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def fails_oddly(tell: Tell) -> None:
    raise OddError(1, 2)


def says_threads(tell: Tell) -> None:
    tell((os.environ["OMP_NUM_THREADS"], os.getpid()))


def begins_another(out: Path, tell: Tell) -> None:
    """Begins a process that would wait for long, and is killed before it can end it."""
    with Processes([partial(waits, out)], 1) as inner:
        while not out.exists():
            inner.told(0.1)
        os.kill(os.getpid(), signal.SIGKILL)


def waits(out: Path, tell: Tell) -> None:
    (out.parent / "new").write_text(str(os.getpid()))
    (out.parent / "new").replace(out)
    time.sleep(60)


def all_told(work: list[Any], at_once: int) -> list[Any]:
    with Processes(work, at_once) as group:
        found = []
        while group.running:
            assert len(group.running) <= at_once
            if (what := group.told(0.2)) is not None:
                found.append(what)
        return found


def test_work_is_done_a_few_at_a_time() -> None:
    assert sorted(all_told([partial(counts, 3), partial(counts, 2), partial(counts, 1)], 2)) == [0, 0, 0, 1, 1, 2]


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 4)
    told = all_told([says_threads, says_threads], 2)
    assert [threads for threads, _ in told] == ["2", "2"]
    assert os.getpid() not in [pid for _, pid in told]


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(BackboneError) as caught:
        all_told([fails], 1)
    assert caught.value.as_dict() == {
        "code": "BACKBONE_NOT_FOUND", "message": "no model 'x'.", "known": ["y"], "hint": "y"
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="OddError: 1 2"):
        all_told([fails_oddly], 1)


@pytest.mark.parametrize("kind", [JadeError, UsageError, BackboneError, ProcessError])
def test_every_error_can_be_pickled(kind: type[JadeError]) -> None:
    error = kind("message", known=["a", "b"], hint="hint")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)


def test_a_process_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    out = tmp_path / "pid"
    with pytest.raises(ProcessError):
        all_told([partial(begins_another, out)], 1)
    pid = int(out.read_text())
    until = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < until, "the process is still there"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
