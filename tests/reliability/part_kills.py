"""kill -9 at random moments: rollouts in one and two processes, indexing, registering, promoting, forking in the
studio, a server under load. Afterwards the same command ends what it began, nothing is lost, doubled or half there, and
what comes out is what an undisturbed command gives.

`jade improve` is killed by `tests/jade_training/improve/test_kill.py`, the build of a corpus at named places by
`tests/jade_graph/retrieval/test_corpus.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from part_faults import FAST, SCRIPTED, environment_of, jade, made

FULL, BLOCK = 1000, 4
ASSETS = Path(__file__).parents[2] / "jade_graph" / "assets"
TINY = ASSETS / "jade-tiny"
ROLLOUT = ["rollout", "dev.json", "--id", "r", "--runs-per-question", "20", *SCRIPTED, *FAST]
INDEX = ["index", "notes", "--corpus", "notes", *FAST]
REGISTER = ["register", str(TINY), "--json"]
KINDS = {
    "rollout": ROLLOUT,
    "rollout of two workers": [*ROLLOUT, "--workers", "2"],
    "index": INDEX,
    "register": REGISTER,
    "promote": ["promote", "2", "--force", "--reason", "a kill", "--json"],
    "fork": [],
    "serve": ["serve", "--corpus", "notes", *SCRIPTED, "--set", "encoder=hash:64"],
}
BEFORE = {
    "promote": [REGISTER, ["register", str(ASSETS / "jade-tiny-hasty"), "--json"],
                ["promote", "1", "--force", "--reason", "the first", "--json"]],
    "fork": [INDEX, ["ask", "Who made film 1?", "--corpus", "notes", *SCRIPTED, *FAST]],
    "serve": [INDEX],
}  # fmt: skip
"""What is done once before the kills."""
FORKS = 12
FORK = f"""
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import load_config
from jade_graph.studio.room import Room

with RunStore(".jade/runs.db") as store:
    rows = [row for row in store.list_runs(limit=500) if row["status"] == "answered"]
    run = store.get(min(rows, key=lambda row: row["started_at"])["id"])
done = len(rows) - 1
room = Room(lambda changes: load_config(overrides=["encoder=hash:64", "backbone=scripted:fault_policy",
                                                   "corpus=notes", *changes]))
for i in range(done, {FORKS}):
    asked = room.fork(run, at=2, edit={{"text": "<answer>Ann Lee</answer>"}}, seed=i)
    for thread in room._threads:
        thread.join()
    assert not room.jobs[asked].failed, room.jobs[asked].note
room.close()
"""
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
        with prepared(kind) as place:
            began = time.monotonic()
            ended(kind, place)
            _whole[kind] = time.monotonic() - began, outcome(kind, place)
    seconds, right = _whole[kind]
    with prepared(kind) as place:
        for i in range(first, last):
            met = killed(kind, place, random.Random(f"kills {seed} {i}").uniform(0.05, 1.0) * seconds)
            out["kills"] += 1
            out[f"kills of {kind}"] += 1
            out["met_running"] += met
        try:
            ended(kind, place)
            seen = outcome(kind, place)
        except (AssertionError, KeyError, OSError, sqlite3.Error) as error:
            seen = f"{type(error).__name__}: {error}"
        if seen != right:
            out["wrong"] += 1
            out["examples"].append(f"{first} {kind}: {seen[:200]} instead of {right[:80]}")
    return out


@contextlib.contextmanager
def prepared(kind: str) -> Iterator[Path]:
    """A folder in which what comes before the command was done."""
    with tempfile.TemporaryDirectory(prefix="jade-kill-") as name:
        place = Path(name)
        made(place)
        (place / "fork.py").write_text(FORK)
        for command in BEFORE.get(kind, []):
            code, told, err = jade(place, *command)
            if code:
                raise RuntimeError(f"{command} fails without any kill: {told} {err}")
        yield place


@contextlib.contextmanager
def begun(kind: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = ["fork.py"] if kind == "fork" else ["-m", "jade_graph.cli", *KINDS[kind]]
    if kind == "serve":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "port").write_text(str(port))
        program += ["--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        [sys.executable, *program], cwd=folder, env=environment_of(folder), start_new_session=True, **quiet
    ) as process:
        yield process


def killed(kind: str, folder: Path, after_s: float) -> bool:
    with begun(kind, folder) as process:
        clients = [Client(folder) for _ in range(4)] if kind == "serve" else []
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
        finally:
            for client in clients:
                client.end()
    return False


class Client(threading.Thread):
    """Asks a server until it is gone; what was answered is written into `answered`, a line each."""

    lock = threading.Lock()

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.over = folder, threading.Event()
        self.answers = 0
        self.start()

    def run(self) -> None:
        url = f"http://127.0.0.1:{(self.folder / 'port').read_text()}/v1/chat/completions"
        while not self.over.is_set():
            body = json.dumps({"messages": [{"role": "user", "content": "Who made film 1?"}]}).encode()
            asked = urllib.request.Request(url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    told = json.load(answer)
            except (OSError, ValueError):
                self.over.wait(0.02)
                continue
            with self.lock, (self.folder / "answered").open("a") as file:
                file.write(told["jade"]["run_id"] + "\n")
                self.answers += 1

    def end(self) -> None:
        self.over.set()
        self.join()


def ended(kind: str, folder: Path) -> None:
    if kind == "serve":  # again, until it has answered and is told to stop
        with begun(kind, folder) as process:
            client = Client(folder)
            while not client.answers and process.poll() is None:
                time.sleep(0.05)
            client.end()
            process.terminate()
            assert process.wait(60) == 0, "the server did not end as it should"
        return
    if kind == "fork":
        with begun(kind, folder) as process:
            assert process.wait(180) == 0, "the forks did not end"
        return
    code, told, err = jade(folder, *KINDS[kind])
    refused = (told.get("error") or {}) if isinstance(told, dict) else {}
    already = kind == "promote" and refused.get("code") == "PROMOTION_SAME"
    assert code == 0 or already, (told, err)


def outcome(kind: str, folder: Path) -> str:
    """What must be the same as without any kill; raises `AssertionError` for what must never be."""
    if kind in ("fork", "serve"):
        return kept(kind, folder)
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
    return json.dumps([(v["number"], v["digest"], v["aliases"]) for v in told["versions"]])


def kept(kind: str, folder: Path) -> str:
    """Of runs in the store: every one that was answered to somebody is there, once, with all of its actions."""
    with sqlite3.connect(folder / ".jade" / "runs.db") as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = db.execute(
            "select r.id, r.status, count(t.seq), count(distinct t.seq) from runs r left join transitions t "
            "on t.run_id = r.id and t.attempt = r.attempt group by r.id"
        ).fetchall()
    runs = {name: (status, actions, apart) for name, status, actions, apart in rows}
    whole = [actions == apart == 3 for status, actions, apart in runs.values() if status == "answered"]
    assert all(whole), f"{whole.count(False)} of {len(whole)} answered runs lack actions or have some twice"
    if kind == "fork":
        return f"{len(whole)} runs"
    told = (folder / "answered").read_text().split()
    assert len(told) == len(set(told)), "an id was given twice"
    lost = [name for name in told if runs.get(name, ("",))[0] != "answered"]
    assert not lost, f"{len(lost)} of {len(told)} answered runs are not on record"
    return "all that were answered are on record"


def broken(figures: dict[str, Any]) -> list[str]:
    return [f"{figures['wrong']} outcomes are others: {figures['examples'][:3]}"] if figures["wrong"] else []
