"""Work in processes of its own: as many at once as asked for, errors whole, nobody left behind.

This module imports little: every process begun here imports it too.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import BackboneError, JadeError, UsageError
from jade_graph.rollouts import processes
from jade_graph.rollouts.processes import ProcessError, Processes, Tell


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
