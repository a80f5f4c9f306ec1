"""A studio in a process of its own, for tests and benchmarks.

Invariant: it is the command that users start, on a free port of this machine; leaving the block ends it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(folder: Path, *options: str, seconds: float = 300.0) -> Iterator[str]:
    """Start `jade studio` in a folder; gives its address without the slash at its end, once it answers.

    Raises:
        RuntimeError: it ended, or does not answer in time; with what it said.
    """
    log = folder / "studio.log"
    command: Sequence[str] = (
        sys.executable, "-m", "jade_graph.cli", "studio", "--port", "0", "--no-open", "--json", *options,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield _address(log, process, time.monotonic() + seconds)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(log: Path, process: subprocess.Popen[bytes], until: float) -> str:
    while time.monotonic() < until:
        said = log.read_text(encoding="utf-8", errors="replace")
        if process.poll() is not None:
            raise RuntimeError(f"jade studio ended with status {process.returncode}: {said}")
        if "}" in said:
            url = str(json.loads(said[said.index("{") : said.rindex("}") + 1])["url"])
            try:
                with urllib.request.urlopen(url, timeout=30):
                    return url.partition("?")[0].rstrip("/")
            except (urllib.error.URLError, ConnectionError):
                pass
        time.sleep(0.05)
    raise RuntimeError(f"jade studio does not answer: {log.read_text(encoding='utf-8', errors='replace')}")


__all__ = ["serving"]
