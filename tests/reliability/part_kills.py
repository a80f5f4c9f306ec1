"""kill -9 at random moments: rollouts in one and two processes, indexing, registering. Afterwards the same command ends
what it began, nothing is lost, doubled or half there, and what comes out is what an undisturbed command gives.

`jade improve` is killed by `tests/jade_training/improve/test_kill.py`, the build of a corpus at named places by
`tests/jade_graph/retrieval/test_corpus.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from part_faults import FAST, SCRIPTED, jade, made

FULL, BLOCK = 1000, 4
TINY = Path(__file__).parents[2] / "jade_graph" / "assets" / "jade-tiny"
ROLLOUT = ["rollout", "dev.json", "--id", "r", "--runs-per-question", "20", *SCRIPTED, *FAST]
KINDS = {
    "rollout": ROLLOUT,
    "rollout of two workers": [*ROLLOUT, "--workers", "2"],
    "index": ["index", "notes", "--corpus", "notes", *FAST],
    "register": ["register", str(TINY), "--json"],
}
_whole: dict[str, tuple[float, str]] = {}


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del folder
    out: dict[str, Any] = {
        "kills": 0,
        "met_running": 0,
        "wrong": 0,
        "examples": [],
        **{f"kills of {k}": 0 for k in KINDS},
    }
    kind = list(KINDS)[first // BLOCK % len(KINDS)]
    if kind not in _whole:
        with tempfile.TemporaryDirectory(prefix="jade-kill-") as place:
            made(Path(place))
            began = time.monotonic()
            ended(kind, Path(place))
            _whole[kind] = time.monotonic() - began, outcome(kind, Path(place))
    seconds, right = _whole[kind]
    with tempfile.TemporaryDirectory(prefix="jade-kill-") as place:
        made(Path(place))
        for i in range(first, last):
            met = killed(kind, Path(place), random.Random(f"kills {seed} {i}").uniform(0.05, 1.0) * seconds)
            out["kills"] += 1
            out[f"kills of {kind}"] += 1
            out["met_running"] += met
        try:
            ended(kind, Path(place))
            seen = outcome(kind, Path(place))
        except (AssertionError, KeyError, sqlite3.Error) as error:
            seen = f"{type(error).__name__}: {error}"
        if seen != right:
            out["wrong"] += 1
            out["examples"].append(f"{first} {kind}: {seen[:200]} instead of {right[:80]}")
    return out


def killed(kind: str, folder: Path, after_s: float) -> bool:
    here = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    command = [sys.executable, "-m", "jade_graph.cli", *KINDS[kind]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


def ended(kind: str, folder: Path) -> None:
    code, told, err = jade(folder, *KINDS[kind])
    assert code == 0, (told, err)


def outcome(kind: str, folder: Path) -> str:
    """What must be the same as without any kill; raises `AssertionError` for what must never be."""
    if kind.startswith("rollout"):
        with sqlite3.connect(folder / ".jade" / "runs.db") as db:
            assert not db.execute("select 1 from runs where status = 'running'").fetchall(), "a run was never ended"
            assert db.execute("select count(*) from runs").fetchone() == (120,), "runs are lost or doubled"
            orphans = "select count(*) from transitions where run_id not in (select id from runs)"
            assert db.execute(orphans).fetchone() == (0,), "transitions without a run"
            rows = db.execute(
                "select t.run_id, t.seq, t.role, t.action_text, t.action_token_ids, t.done "
                "from transitions t join runs r "
                "on t.run_id = r.id and t.attempt = r.attempt order by t.run_id, t.seq"
            ).fetchall()
        return hashlib.sha256(repr(rows).encode()).hexdigest()
    if kind == "index":
        code, told, err = jade(folder, "search", "notes", "who made film 7", *FAST)
        assert code == 0, err
        manifest = json.loads((folder / ".jade" / "corpora" / "notes" / "manifest.json").read_text())
        return f"{manifest['corpus_id']} {manifest['vectors']} {manifest['files']} {json.dumps(told)[:400]}"
    code, told, err = jade(folder, "versions", "--json")
    assert code == 0, err
    return json.dumps([(v["number"], v["digest"]) for v in told["versions"]])


def broken(figures: dict[str, Any]) -> list[str]:
    return [f"{figures['wrong']} outcomes are others: {figures['examples'][:3]}"] if figures["wrong"] else []
