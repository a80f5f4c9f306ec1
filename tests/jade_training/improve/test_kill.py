"""`jade improve` killed with -9 at random moments: it goes on, and no transition is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

QUESTIONS, RUNS = 6, 3
COMMAND = (
    "improve", "microworld:train?n=40&scale=0.1", "--held-out", "microworld:validation?n=8&scale=0.1",
    "--questions", str(QUESTIONS), "--runs-per-question", str(RUNS), "--evaluate-every", "2", "--json",
)  # fmt: skip


def start(out: Path, iterations: int, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jade_graph.cli", *COMMAND, "--iterations", str(iterations), "--out", str(out)]
    environment = {**os.environ, "JADE_DATA_DIR": str(out.parent / "data"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        **options,
    )  # fmt: skip


def killed(out: Path, iterations: int, after_s: float) -> bool:
    """Whether the command was still running when it was killed."""
    process = start(out, iterations)
    try:
        process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False


def check(out: Path, iterations: int) -> None:
    """The store holds each run once, whole, and each update was made of what is recorded."""
    with sqlite3.connect(out / "runs.sqlite") as db:
        runs = db.execute("select id, attempt, status from runs").fetchall()
        doubled = db.execute(
            "select run_id, attempt, seq from transitions group by run_id, attempt, seq having count(*) > 1"
        ).fetchall()
        orphans = db.execute("select count(*) from transitions where run_id not in (select id from runs)").fetchone()
        held = {
            run: db.execute(
                "select seq from transitions where run_id = ? and attempt = ? order by seq", (run, a)
            ).fetchall()
            for run, a, _ in runs
        }
    assert len(runs) == iterations * QUESTIONS * RUNS
    assert {status for _, _, status in runs} <= {"answered", "failed"}
    assert not doubled
    assert orphans == (0,)
    assert all([s for (s,) in seqs] == list(range(len(seqs))) and seqs for seqs in held.values())
    state = json.loads((out / "improve.json").read_text())
    assert state["done"] == iterations
    assert sorted(map(int, state["evaluations"])) == list(range(0, iterations + 1, 2))
    # What an update was made of is what is recorded of its iteration, run for run.
    with sqlite3.connect(out / "runs.sqlite") as db:
        for i, metrics in enumerate(state["history"]):
            found = db.execute(
                "select count(*), avg(calls) from runs where backbone_version = ?", (f"run-{i:03d}",)
            ).fetchone()
            assert found[0] == metrics["runs"] == QUESTIONS * RUNS
            assert found[1] == pytest.approx(metrics["calls"])


def run_with_kills(tmp_path: Path, kills: int, *, iterations: int, seed: int) -> None:
    """Kills fall anywhere in what an undisturbed run takes, start included."""
    began = time.monotonic()
    reference = start(tmp_path / "reference" / "run", iterations)
    told, errors = reference.communicate()
    assert reference.returncode == 0, errors
    assert json.loads(told)["iterations"] == iterations
    check(tmp_path / "reference" / "run", iterations)
    whole = time.monotonic() - began
    rng, hit = random.Random(seed), 0
    for attempt in range(6):  # a machine that has become quicker finishes before it is killed: then once more, sooner
        out = tmp_path / f"killed-{attempt}" / "run"
        hit = sum(killed(out, iterations, rng.uniform(0.3, 0.8) * whole / 2**attempt) for _ in range(kills))
        last = start(out, iterations)
        _, errors = last.communicate()
        assert last.returncode == 0, errors
        check(out, iterations)
        if hit:
            return
    pytest.fail("no kill met a running command")


def test_one_kill(tmp_path: Path) -> None:
    run_with_kills(tmp_path, 1, iterations=2, seed=3)


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    run_with_kills(tmp_path, 10, iterations=4, seed=7)


@pytest.mark.parametrize("moment", ["rollout 1", "train 1"])
def test_an_interrupt_says_what_is_kept_and_nothing_else(tmp_path: Path, moment: str) -> None:
    """One line, whatever other threads were doing; and the same command can be given again."""
    out = tmp_path / "run"
    process = start(out, 4, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    assert process.stderr is not None
    told = ""
    while moment not in told:
        piece = process.stderr.read(1)
        assert piece, told
        told += piece
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, told + rest
    assert "0 of 4 iterations are kept. The same command goes on from there." in rest
    assert "Traceback" not in rest
    assert "terminate" not in rest
