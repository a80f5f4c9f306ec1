"""Evaluations on disk: rows with what they were made with, written as they come.

Invariant: the first line is the manifest. A file by its own name is whole; what an evaluation that was cut off has is
beside it, and is taken up only by one with the same manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jade_graph.errors import ConfigError, DataError
from jade_graph.scoring.evaluation import Row
from jade_graph.settings.manifest import MATTERS, differences

SAME = (*MATTERS, "preset", "backbone", "backbone_version", "frozen_backbone", "graph_hash", "limits")
"""What must agree where an evaluation goes on."""


def save_rows(path: Path, rows: Iterable[Row], manifest: Mapping[str, Any]) -> None:
    """Rows and manifest as JSON lines: the first line is the manifest."""
    lines = [json.dumps({"manifest": dict(manifest)}), *(json.dumps(asdict(r)) for r in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_rows(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """What `save_rows` wrote. Raises `DataError` EVAL_FILE."""
    try:
        first, *rest = path.read_text(encoding="utf-8").rstrip("\n").split("\n")  # texts may hold other breaks
        return [Row(**json.loads(line)) for line in rest], dict(json.loads(first)["manifest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{str(path)!r} is no saved evaluation: {error}", code="EVAL_FILE", hint="jade eval DATASET --out FILE"
        ) from error


class RowFile:
    """The rows of an evaluation as they come; a context manager.

    `known` holds, by question, those that an evaluation which was cut off has left.

    Args:
        path: of the whole file. Until it is whole, rows are in `path` with ".part" added.
        fresh: throw away what was left.

    Raises:
        ConfigError: EVAL_CHANGED, what was left was made with other settings.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path, self.manifest = path, dict(manifest)
        self.part = path.with_name(path.name + ".part")
        self.known: dict[str, Row] = {}
        if fresh:
            self.part.unlink(missing_ok=True)
        elif self.part.exists():
            self.known = {row.question_id: row for row in self._left()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rows(self.part, self.known.values(), self.manifest)
        self._file: IO[str] = self.part.open("a", encoding="utf-8")

    def _left(self) -> list[Row]:
        lines = self.part.read_text(encoding="utf-8").splitlines()
        try:
            facts = dict(json.loads(lines[0])["manifest"])
        except (ValueError, KeyError, TypeError, IndexError):
            return []  # cut off before its first line was whole
        if unlike := differences(facts, json.loads(json.dumps(self.manifest, default=str)), SAME):
            told = "; ".join(f"{key}: {old!r} and now {new!r}" for key, (old, new) in unlike.items())
            raise ConfigError(
                f"{str(self.part)!r} is an evaluation that was cut off, with other settings: {told}.",
                code="EVAL_CHANGED",
                hint="another --out file, or --fresh to begin again",
            )
        rows = []
        for line in lines[1:]:
            try:
                rows.append(Row(**json.loads(line)))
            except (ValueError, TypeError):
                break  # the line that was being written
        return rows

    def keep(self, row: Row) -> None:
        """Write a row; it is on disk when this returns."""
        self._file.write(json.dumps(asdict(row)) + "\n")
        self._file.flush()

    def whole(self, rows: Sequence[Row]) -> None:
        """All rows, in their order: the file takes its own name."""
        self._file.close()
        save_rows(self.part, rows, self.manifest)
        self.part.replace(self.path)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()


__all__ = ["RowFile", "load_rows", "save_rows"]
