"""One writer per folder.

Invariant: the operating system holds the lock, so it goes with the process that took it, however that ends; what the
file says about its holder is for messages only, and a name left behind by a dead process locks nobody out.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jade_graph import private
from jade_graph.errors import RetrievalError

LOCK_FILE = ".lock"


@contextmanager
def write_lock(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the folder's writer lock. Readers need none.

    Args:
        wait: seconds to wait for another writer.

    Raises:
        RetrievalError: CORPUS_LOCKED, naming the holder, when another writer (process or thread) has it.
    """
    private.folder(folder)
    path = folder / LOCK_FILE
    until = time.monotonic() + wait
    with path.open("a+", encoding="utf-8") as file:
        while not (taken := _take(file)) and time.monotonic() < until:
            time.sleep(0.1)
        if not taken:
            raise RetrievalError(
                f"the corpus {folder.name!r} is being written by {_holder(path)}.",
                code="CORPUS_LOCKED",
                hint="wait until it ends, or write under another name with --corpus NAME",
            )
        try:
            file.seek(0)
            file.truncate()
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}, file)
            file.flush()
            yield
        finally:
            file.seek(0)
            file.truncate()
            file.flush()
            _release(file)


def holder(folder: Path) -> str | None:
    """Who writes in this folder now, in words; None when nobody does."""
    path = folder / LOCK_FILE
    if not path.exists():
        return None
    try:
        with path.open("a+", encoding="utf-8") as file:
            if _take(file):
                _release(file)
                return None
    except OSError:  # where nothing can be written, nobody writes
        return None
    return _holder(path)


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["since"]))
        return f"process {record['pid']} on {record['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):  # caught between taking the lock and writing the name
        return "another process"


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # a byte range beyond the text, so that others can still read who holds the lock

    def _take(file: IO[str]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _release(file: IO[str]) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: IO[str]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _release(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
