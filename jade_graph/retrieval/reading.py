"""What reading gives: documents, what was left out, and notes; and how a file is opened.

Invariant: nothing is opened but a regular file, no more of it is read than was allowed, and texts are whole Unicode.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from jade_graph.retrieval.encodings import NotTextError, decode
from jade_graph.retrieval.words import whole

MAX_BYTES = 64 * 1024 * 1024
"""Larger files are left out; JSON lines and tables are read line by line, and only their lines have this limit."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be cut into passages. `source` is where it came from, relative to the folder that was read."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    markdown: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, folder or line that was left out, and why.

    `kind` is "hidden", "unknown" for files of no known kind, or empty.
    """

    source: str
    reason: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What was guessed or repaired of a file that was read."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Documents:
    """What was read. `files` counts the files that gave at least one document."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...] = ()
    files: int = 0
    notes: tuple[Note, ...] = ()


class UnreadableError(Exception):
    """Why one file gives nothing."""


class Found:
    """Collects what is said while files are read."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.skipped: list[Skipped] = []
        self.notes: list[Note] = []

    def skip(self, source: str, reason: str, kind: str = "") -> None:
        self.skipped.append(Skipped(source, whole(reason), kind))

    def note(self, source: str, text: str) -> None:
        if text:
            self.notes.append(Note(source, whole(text)))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, open for reading: a pipe or a device that took its place meanwhile neither waits nor is read."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableError("not a regular file")
        yield file


def read_bytes(path: Path, found: Found) -> bytes:
    """All of a file that is neither empty nor too large."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(found.max_bytes + 1) if size <= found.max_bytes else b""
    size = max(size, len(data))
    if size == 0:
        raise UnreadableError("empty")
    if size > found.max_bytes:
        limit = found.max_bytes / 2**20
        raise UnreadableError(f"{size / 2**20:.0f} MiB, more than the limit of {limit:.0f} MiB")
    return data


def text_of(data: bytes, source: str, found: Found, *, markup: bool = False) -> str:
    """Decoded, with a note where that took a guess."""
    try:
        decoded = decode(data, markup=markup)
    except NotTextError as error:
        raise UnreadableError(str(error)) from error
    found.note(source, decoded.note)
    return decoded.text


def parsed(text: str | bytes) -> Any:
    """JSON. Raises `UnreadableError`, whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UnreadableError("not JSON (nested too deeply)") from None
    except ValueError as error:
        raise UnreadableError(f"not JSON ({error})") from error
