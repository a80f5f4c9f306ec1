"""JSON lines on disk: a file that is whole or not there, and one that grows while something long is measured.

Invariant: nobody sees half of a whole file; a growing one says first what its rows were made with, a row that was cut
off counts as none, and rows that were made with anything else are neither used nor written over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jade_graph.errors import JadeError


def write_whole(path: Path, lines: Iterable[str], *, errors: str = "strict") -> int:
    """Write lines as UTF-8; the file takes its name when it is whole. Returns how many there are.

    Args:
        errors: what becomes of lone surrogates, as of `open`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    count = 0
    with part.open("w", encoding="utf-8", errors=errors) as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    part.replace(path)
    return count


class Growing:
    """Rows that are on disk as soon as they are made; the same call goes on behind them.

    Args:
        path: of the file; None keeps the rows in memory alone.
        first: its first line, what all rows are made with.
        refuse: the error for a file that begins with another line (what that says; {}: it is none of ours).
    """

    def __init__(
        self, path: Path | None, first: Mapping[str, Any], refuse: Callable[[Mapping[str, Any]], JadeError]
    ) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        now = json.loads(json.dumps(dict(first)))
        head, *rest = path.read_text("utf-8").split("\n") if path.is_file() else [""]
        if head or rest:
            before = _object(head)
            if before != now:
                raise refuse(before or {})
        for line in rest:
            if (row := _object(line)) is None:
                break  # the end, or a line that was being written
            self.rows.append(row)
        write_whole(path, map(json.dumps, (now, *self.rows)))

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


__all__ = ["Growing", "write_whole"]
