"""An hour of `jade serve` under steady load, a promotion every minute, a learning run beside it and the studio open.

Invariant: the server is the real command over a real registry. What it holds (memory, threads, descriptors) and what it
leaves (the store's bytes) are read every few seconds and fitted by a line against the runs that it answered, with the
interval of the slope, so that a leak is a number and not an impression.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from part_faults import environment_of, jade
from part_kills import ASSETS

FULL, BLOCK = 60, 1000
EVERY_S, PROMOTED_S, CLIENTS, WARM = 5.0, 60.0, 8, 0.2
"""Seconds between readings and between promotions; clients; the share of the time that is not fitted."""
MEMORY_MB, HANDLES = 20.0, 1.0
"""Most that 10,000 runs may add: the lower end of the slope's 95 % interval."""


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    """`last - first` minutes."""
    del seed, folder
    with tempfile.TemporaryDirectory(prefix="jade-soak-") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        for command in (
            ["register", str(ASSETS / "jade-tiny"), "--json"],
            ["register", str(ASSETS / "jade-tiny-hasty"), "--json"],
            ["promote", "1", "--force", "--reason", "the first", "--json"],
        ):
            code, told, err = jade(place, *command)
            if code:
                raise RuntimeError(f"{command}: {told} {err}")
        ports = [_free(), _free()]
        champion = ["--backbone", "models:/jade-backbone@champion", "--set", "reload.poll_s=2"]
        server = stack.enter_context(_command(place, "serve", "--port", str(ports[0]), *champion))
        studio = stack.enter_context(_command(place, "studio", "--port", str(ports[1]), "--no-open"))
        clients = [_Client(ports[0], i) for i in range(CLIENTS)]
        promoter = threading.Thread(target=_promotions, args=(place, clients), daemon=True)
        learner = threading.Thread(target=_learning, args=(place, clients), daemon=True)
        readings: list[dict[str, float]] = []
        try:
            _await(lambda: any(c.answered for c in clients), server)
            promoter.start()
            learner.start()
            end = time.monotonic() + 60.0 * (last - first)
            while time.monotonic() < end and server.poll() is None and studio.poll() is None:
                readings.append(_read(server.pid, place) | {"runs": float(sum(c.answered for c in clients))})
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/", timeout=30).read()
                time.sleep(EVERY_S)
            died = float(server.poll() is not None) + float(studio.poll() is not None)
        finally:
            for client in clients:
                client.over.set()
        for client in clients:
            client.join(60)
        promoter.join(300)
        learner.join(600)
        server.send_signal(signal.SIGTERM)
        clean = server.wait(120) == 0
        mixed, versions = _versions(place)
    kept = readings[int(len(readings) * WARM) :]
    figures: dict[str, Any] = {
        "minutes": last - first,
        "runs": sum(c.answered for c in clients),
        "refused": sum(c.refused for c in clients),
        "unanswered": sum(c.lost for c in clients),
        "versions_seen": versions,
        "runs_of_two_versions": mixed,
        "died": died,
        "ended_clean": int(clean),
    }
    for what in ("rss_mb", "threads", "descriptors", "store_mb"):
        slope, half = _slope([r["runs"] for r in kept], [r[what] for r in kept])
        figures[f"{what}_per_10000_runs"] = round(1e4 * slope, 3)
        figures[f"{what}_per_10000_runs_half_width"] = round(1e4 * half, 3)
        figures[f"{what}_at_the_end"] = round(kept[-1][what], 1)
    return figures


def broken(figures: dict[str, Any]) -> list[str]:
    out = [f"{n}: {figures[n]}" for n in ("unanswered", "runs_of_two_versions", "died") if figures[n]]
    if not figures["ended_clean"]:
        out.append("the server did not end cleanly")
    for what, most in (("rss_mb", MEMORY_MB), ("threads", HANDLES), ("descriptors", HANDLES)):
        least = figures[f"{what}_per_10000_runs"] - figures[f"{what}_per_10000_runs_half_width"]
        if least > most:
            out.append(f"{what} grows by at least {least:.1f} in 10,000 runs")
    return out


class _Client(threading.Thread):
    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.url, self.number = f"http://127.0.0.1:{port}/v1/chat/completions", number
        self.answered = self.refused = self.lost = 0
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        body = json.dumps({"messages": [{"role": "user", "content": "Who painted the Marsh ?"}]}).encode()
        while not self.over.is_set():
            asked = urllib.request.Request(self.url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    json.load(answer)
                self.answered += 1
            except urllib.error.HTTPError as error:
                self.refused += error.code == 429
                self.lost += error.code != 429
            except OSError:
                self.lost += self.answered > 0  # before the first answer it has not begun to listen
                self.over.wait(0.2)
            self.over.wait(0.05)


def _promotions(place: Path, clients: list[_Client]) -> None:
    number = 2
    while not clients[0].over.wait(PROMOTED_S):
        jade(place, "promote", str(number), "--force", "--reason", "soak", "--json")
        number = 3 - number


def _learning(place: Path, clients: list[_Client]) -> None:
    """A small learning run after the other, on questions of microworld."""
    number = 0
    while not clients[0].over.is_set():
        number += 1
        small = ["--iterations", "1", "--questions", "4", "--runs-per-question", "4", "--evaluate-every", "5"]
        jade(place, "improve", "microworld:train?n=40", "--held-out", "microworld:dev?n=8", "--backbone", "tiny-hasty",
             "--out", f"soak{number}", *small, "--json")  # fmt: skip
        clients[0].over.wait(5)


@contextlib.contextmanager
def _command(place: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "jade_graph.cli", *args]
    with (place / f"{args[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, env=environment_of(place), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await(condition: Any, process: subprocess.Popen[bytes]) -> None:
    while not condition():
        if process.poll() is not None:
            raise RuntimeError("the server ended before it answered")
        time.sleep(0.1)


def _read(pid: int, place: Path) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    field = {line.partition(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    store = sum(file.stat().st_size for file in (place / ".jade").glob("runs.db*"))
    return {"rss_mb": int(field["VmRSS"]) / 1024, "threads": float(field["Threads"]),
            "descriptors": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))), "store_mb": store / 2**20}  # fmt: skip


def _versions(place: Path) -> tuple[int, int]:
    """Answered runs whose actions come from more than one version, and how many versions were seen."""
    import sqlite3

    with sqlite3.connect(place / ".jade" / "runs.db") as db:
        mixed = (
            "select count(*) from (select run_id from transitions where role != 'R' group by run_id, attempt "
            "having count(distinct backbone_version) > 1)"
        )
        seen = "select count(distinct backbone_version) from runs where status = 'answered'"
        return int(db.execute(mixed).fetchone()[0]), int(db.execute(seen).fetchone()[0])


def _slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """Of the least-squares line, and half the width of its 95 % interval."""
    from scipy.stats import linregress, t

    fitted = linregress(x, y)
    return float(fitted.slope), float(t.ppf(0.975, max(1, len(x) - 2)) * fitted.stderr)
