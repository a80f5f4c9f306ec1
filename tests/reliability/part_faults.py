"""What commands do while something under them fails, and once it works again: a code, or they go on; never a traceback.

Invariant: a row of the table is what was seen in this run. Every command gets the same small questions and documents.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from postgres import MissingError, postgres

POLICY = """
def policy(ask):
    return {"PL": "<workflow>R,AG</workflow>", "AG": "<answer>Ann Lee</answer>"}[ask.role]

def memory(ask):
    raise MemoryError("no memory is left for this batch")

def dying(ask):  # the thread that writes records is gone from the first call on
    import ctypes, threading
    for thread in threading.enumerate():
        if thread.name == "jade-store":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return policy(ask)
"""
FAST = ["--set", "encoder=hash:64", "--set", "limits.deadline_s=4", "--json"]
SCRIPTED = ["--backbone", "scripted:fault_policy"]
TIMEOUT_S = 180

Folder = Path


def environment_of(folder: Folder) -> dict[str, str]:
    """What a command sees: this machine's, without any settings of ours, modules of the folder first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JADE_", "MLFLOW_"))}
    here = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    kept |= {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    return kept


def jade(folder: Folder, *args: str) -> tuple[int, Any, str]:
    """Exit code, JSON or None, and what went to stderr."""
    environment = environment_of(folder)
    command = [sys.executable, "-m", "jade_graph.cli", *args]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, None, "it never ended"
    with contextlib.suppress(ValueError):
        return done.returncode, json.loads(done.stdout), done.stderr
    return done.returncode, None, done.stderr + done.stdout


def made(folder: Folder) -> None:
    (folder / "fault_policy.py").write_text(POLICY)
    context = [["Film", ["The film was made by Ann Lee."]], ["Other", ["A river runs through the town."]]]
    same = {"answer": "Ann Lee", "type": "bridge", "context": context, "supporting_facts": [["Film", 0]]}
    asked = [{"_id": f"q{i}", "question": f"Who made film {i}?", **same} for i in range(6)]
    (folder / "dev.json").write_text(json.dumps(asked))
    (folder / "notes").mkdir()
    for i in range(40):
        (folder / "notes" / f"n{i}.md").write_text(
            f"# Film {i}\n\nFilm {i} was made by Ann Lee.\n" + "It rained. " * 400
        )


INDEX = ["index", "notes", "--corpus", "notes", *FAST]
ASK = ["ask", "Who made film 1?", "--corpus", "notes", *SCRIPTED, *FAST]
SEARCH = ["search", "notes", "film", *FAST]
ROLLOUT = ["rollout", "dev.json", "--id", "r", *SCRIPTED, *FAST]
EVAL = ["eval", "dev.json", *SCRIPTED, *FAST]
VERSIONS = ["versions", "--json"]
REGISTER = ["register", "tiny", "--json"]
PROMOTE = ["promote", "1", "--json"]


# --- faults: each holds while the command runs ------------------------------------------------------------------------
@contextlib.contextmanager
def small_disk(folder: Folder, *, flags: int = 0, size: str = "600k") -> Iterator[None]:
    """The data folder on a disk of its own, which is full after `size` (needs the right to mount)."""
    data = folder / ".jade"
    kept = folder / "kept"
    data.mkdir(exist_ok=True)
    shutil.copytree(data, kept)
    libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)

    def mount(more: int) -> None:
        if libc.mount(b"tmpfs", str(data).encode(), b"tmpfs", more, f"size={size}".encode()):
            raise PermissionError(ctypes.get_errno(), "nothing may be mounted here")

    mount(0)
    try:
        shutil.copytree(kept, data, dirs_exist_ok=True)
        if flags:
            mount(flags | 32)  # MS_REMOUNT
        yield
    finally:
        libc.umount2(str(data).encode(), 2)


def read_only(folder: Folder) -> Any:
    return small_disk(folder, flags=1, size="40m")


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    (folder / ".jade").mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / ".jade" / "runs.db", isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table if not exists other (x)")
        db.execute("begin exclusive")
        yield
        db.execute("rollback")


@contextlib.contextmanager
def overwritten(folder: Folder, pattern: str) -> Iterator[None]:
    files = sorted((folder / ".jade").glob(pattern))
    kept = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(b"\0damaged\0" * 64 + kept[file][576:])
    yield
    for file, data in kept.items():
        file.write_bytes(data)


@contextlib.contextmanager
def nothing(folder: Folder) -> Iterator[None]:
    del folder
    yield


@contextlib.contextmanager
def jumping(folder: Folder) -> Iterator[None]:
    """The clock goes an hour back and forth, a few times a second."""
    site = folder / "sitecustomize.py"
    site.write_text(
        "import time\nreal, begun = time.time, time.monotonic()\n"
        "time.time = lambda: real() + 3600 * (int(4 * (time.monotonic() - begun)) % 3 - 1)\n"
    )
    yield
    site.unlink()


@contextlib.contextmanager
def hanging(folder: Folder) -> Iterator[None]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        (folder / "port").write_text(str(server.getsockname()[1]))
        yield


@contextlib.contextmanager
def postgres_killed(folder: Folder) -> Iterator[None]:
    """kill -9 of all of a PostgreSQL server once 20 runs are in it; afterwards it is back, with what it had."""
    import psycopg

    server = _servers.enter_context(postgres())
    (folder / "url").write_text(server.url)

    def kill() -> None:
        with psycopg.connect(server.url, autocommit=True) as db:
            while server.process.poll() is None:
                with contextlib.suppress(psycopg.errors.UndefinedTable):
                    if db.execute("select count(*) from runs where status <> 'running'").fetchone()[0] >= 20:
                        os.killpg(server.process.pid, signal.SIGKILL)
                        for pid in backends:
                            with contextlib.suppress(ProcessLookupError):
                                os.kill(pid, signal.SIGKILL)
                        return
                    backends.update(
                        pid
                        for (pid,) in db.execute(
                            "select pid from pg_stat_activity where pid <> pg_backend_pid()"
                        ).fetchall()
                    )

    backends: set[int] = set()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield
    killer.join(30)
    server.process.wait(30)
    server.start()


_servers = contextlib.ExitStack()


def hung(folder: Folder, command: list[str]) -> list[str]:
    place = f"127.0.0.1:{(folder / 'port').read_text()}"
    model = f"openai:http://{place}/v1#m"
    return [model if part == SCRIPTED[1] else part.replace("127.0.0.1:9", place) for part in command]


PG = [*ROLLOUT, "--runs-per-question", "200", "--set", "store.url=URL"]
DOWN = ["--set", "registry.url=http://127.0.0.1:9"]
CASES: list[tuple[str, str, Callable[[Folder], Any], list[str], list[list[str]]]] = [
    ("disk full", "index", small_disk, INDEX, []),
    ("disk full", "ask", lambda f: small_disk(f, size="2m"), ASK, [INDEX]),
    ("disk full", "rollout", lambda f: small_disk(f, size="300k"), ROLLOUT, []),
    ("read-only folder", "index", read_only, INDEX, []),
    ("read-only folder", "search", read_only, SEARCH, [INDEX]),
    ("read-only folder", "rollout", read_only, ROLLOUT, []),
    ("store locked", "ask", locked, ASK, [INDEX]),
    ("store locked", "rollout", locked, ROLLOUT, []),
    ("store damaged", "runs list", lambda f: overwritten(f, "runs.db"), ["runs", "list", "--json"], [ROLLOUT]),
    ("Chroma damaged", "search", lambda f: overwritten(f, "corpora/notes/chroma/chroma.sqlite3"), SEARCH, [INDEX]),
    ("word index damaged", "search", lambda f: overwritten(f, "corpora/notes/bm25/*/*.npy"), SEARCH, [INDEX]),
    ("encoder missing", "index", nothing, [*INDEX, "--set", "encoder=/no/such/model"], []),
    ("out of memory in a batch", "ask", nothing, [p + ":memory" if p == SCRIPTED[1] else p for p in ASK], [INDEX]),
    ("clock jumps an hour", "index", jumping, INDEX, []),
    ("clock jumps an hour", "ask", jumping, ASK, [INDEX]),
    ("clock jumps an hour", "rollout", jumping, ROLLOUT, []),
    ("the store's thread dies", "ask", nothing, [p + ":dying" if p == SCRIPTED[1] else p for p in ASK], [INDEX]),
    ("the store's thread dies", "rollout", nothing, [p + ":dying" if p == SCRIPTED[1] else p for p in ROLLOUT], []),
    ("PostgreSQL killed", "rollout", postgres_killed, PG, []),
    ("network hangs", "ask", hanging, ASK, [INDEX]),
    ("network hangs", "rollout", hanging, ROLLOUT, []),
    ("network hangs", "eval", hanging, EVAL, []),
    ("MLflow server down", "versions", nothing, [*VERSIONS, *DOWN], []),
    ("MLflow server down", "register", nothing, [*REGISTER, *DOWN], []),
    ("MLflow server down", "promote", nothing, [*PROMOTE, *DOWN], []),
    ("MLflow server hangs", "versions", hanging, [*VERSIONS, *DOWN], []),
    ("MLflow server hangs", "register", hanging, [*REGISTER, *DOWN], []),
    ("MLflow server hangs", "promote", hanging, [*PROMOTE, *DOWN], []),
]
FULL, BLOCK = len(CASES), 1


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del seed, folder
    rows = []
    for fault, name, failing, command, before in CASES[first:last]:
        with tempfile.TemporaryDirectory(prefix="jade-fault-") as place, _servers:
            rows.append(_row(Path(place), fault, name, failing, command, before))
    return {"rows": rows}


def _row(
    folder: Path, fault: str, name: str, failing: Callable[[Folder], Any], command: list[str], before: list[list[str]]
) -> dict[str, Any]:
    made(folder)
    for each in before:
        if jade(folder, *each)[0]:
            raise RuntimeError(f"{each} fails without any fault: {jade(folder, *each)}")
    try:
        with failing(folder):
            given = hung(folder, command) if failing is hanging else command
            if failing is postgres_killed:
                given = command = [p.replace("=URL", f"={(folder / 'url').read_text()}") for p in command]
            code, told, err = jade(folder, *given)
    except (PermissionError, MissingError) as error:
        return {
            "fault": fault,
            "command": name,
            "seen": f"not tried: {getattr(error, 'strerror', error)}",
            "after": "",
            "ok": None,
        }
    runs = [told] if isinstance(told, dict) else []
    error = next((r["error"] for r in runs if r.get("error")), None)
    named = error["code"] if isinstance(error, dict) else error
    clean = "Traceback" not in err and named != "INTERNAL" and code != 124
    after = ""
    lasting = given != command or failing is nothing  # the fault is in the command itself
    if not lasting:
        again, _, rest = jade(folder, *command)
        if failing is postgres_killed and again == 0:
            again, rest = _whole((folder / "url").read_text())
        after = "goes on" if again == 0 else f"exit {again}: {rest[-120:]}"
    failed = f", {told['failed']} runs failed" if isinstance(told, dict) and told.get("failed") else ""
    seen = f"{named}, exit {code}" if named else f"exit {code}{failed}"
    told_so = code == 0 or named not in (None, "CONFIG_UNKNOWN_KEY")  # a wrong command of ours is no fault
    ok = clean and told_so and after in ("", "goes on")
    return {"fault": fault, "command": name, "seen": seen, "after": after, "ok": ok, "said": err[-300:]}


def _whole(url: str) -> tuple[int, str]:
    """0 where all 1,200 runs are there, once, ended, each with its three actions."""
    import psycopg

    with psycopg.connect(url) as db:
        ((runs, ended),) = db.execute(
            "select count(*), count(*) filter (where status = 'answered') from runs"
        ).fetchall()
        ((odd,),) = db.execute(
            "select count(*) from (select r.id from runs r left join transitions t on t.run_id = r.id and "
            "t.attempt = r.attempt group by r.id having count(t.seq) <> 3) x"
        ).fetchall()
    return (0, "") if (runs, ended, odd) == (1200, 1200, 0) else (1, f"{runs} runs, {ended} answered, {odd} not whole")


def broken(figures: dict[str, Any]) -> list[str]:
    return [
        f"{r['fault']}, {r['command']}: {r['seen']} {r['after']} {r['said']}"
        for r in figures["rows"]
        if r["ok"] is False
    ]
