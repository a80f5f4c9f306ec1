"""Reading records from JSON and JSON-lines files, compressed or not; tables and saved data sets are in `tables`.

Invariant: every error names the file, the line (or item) and the field, so that a person can go and mend it.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from jade_graph.data.tables import table_rows
from jade_graph.errors import DataError

T = TypeVar("T")

_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object", bool: "true or false", int: "a number"}


class Record:
    """One JSON object and where it stands, e.g. "dev.jsonl:7"."""

    __slots__ = ("data", "where")

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self.data, self.where = data, where

    def get(self, field: str, kind: type[T], default: T) -> T:
        """A field that may be missing or null. Raises `DataError` DATASET_FIELD when it is of another kind."""
        value = self.data.get(field)
        return default if absent(value) else self._checked(field, value, kind)

    def need(self, field: str, kind: type[T]) -> T:
        """A field that must be there. Raises `DataError` DATASET_FIELD."""
        if absent(self.data.get(field)):
            raise DataError(
                f"{self.where}: the field {field!r} is missing.", code="DATASET_FIELD", known=sorted(self.data)
            )
        return self._checked(field, self.data[field], kind)

    def identifier(self, *fields: str) -> str:
        """The first of these fields that is there, as text; numbers are fine."""
        for field in fields:
            if not absent(self.data.get(field)) and self.data[field] != "":
                return str(self.data[field])
        raise DataError(
            f"{self.where}: the field {fields[0]!r} is missing.", code="DATASET_FIELD", known=sorted(self.data)
        )

    def within(self, field: str) -> Record:
        """An inner object, empty where it is missing."""
        return Record(self.get(field, dict, {}), f"{self.where}: {field}")

    def objects(self, field: str) -> list[Record]:
        """A list of objects, empty where it is missing."""
        return [
            Record(self._checked(f"{field}[{i}]", item, dict), f"{self.where}: {field}[{i}]")
            for i, item in enumerate(self.get(field, list, []))
        ]

    def texts(self, field: str) -> tuple[str, ...]:
        """A text or a list of texts, empty where it is missing or not a number (NaN).

        Numbers are written out, true and false are yes and no, and a text that is a list as JSON or Python writes it
        (a column of a table) is that list.
        """
        value = self.data.get(field)
        if isinstance(value, str):
            value = _listed(value)
        items = value if isinstance(value, list) else [] if absent(value) else [value]
        written = []
        for item in items:
            if not isinstance(item, str | int | float) or absent(item):
                raise self.bad(field, "a text or a list of texts", item)
            written.append(_written(item))
        return tuple(dict.fromkeys(written))

    def bad(self, field: str, wanted: str, value: object) -> DataError:
        shown = json.dumps(value, default=str)
        return DataError(f"{self.where}: the field {field!r} is not {wanted} but {shown[:60]}.", code="DATASET_FIELD")

    def _checked(self, field: str, value: object, kind: type[T]) -> T:
        if kind is int and isinstance(value, str) and value.strip().isdecimal():  # a cell of a table
            value = int(value)
        if not isinstance(value, kind):
            raise self.bad(field, _KINDS.get(kind, kind.__name__), value)
        return value


def absent(value: object) -> bool:
    """Whether a field says nothing: null, or the NaN that tables put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _written(item: str | float) -> str:
    return ("yes" if item else "no") if isinstance(item, bool) else str(item)


def _listed(text: str) -> object:
    """The list that a text is, else the text itself."""
    if not (text.lstrip().startswith("[") and text.rstrip().endswith("]")):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
            return value
    return text


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A text file, gzip or not, a byte-order mark ignored. Raises `DataError` DATASET_UNREADABLE."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.name.endswith(".gz")
            else path.open(encoding="utf-8-sig") as file
        ):
            yield file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path.name}: cannot be read: {type(error).__name__}: {error}", code="DATASET_UNREADABLE"
        ) from error


def read_records(path: Path) -> Iterator[Record]:
    """The objects of a JSON-lines file, of a JSON file that holds a list of them, or the rows of a table.

    Raises:
        DataError: DATASET_JSON with file and line, DATASET_UNREADABLE.
    """
    if (rows := table_rows(path)) is not None:
        for where, row in rows:
            yield Record(row, where)
        return
    with open_text(path) as file:
        first = ""
        while not first.strip():
            first = file.readline()
            if not first:
                return
        file.seek(0)
        if first.lstrip().startswith("["):
            yield from _items(path, file)
        else:
            yield from _lines(path, file)


def first_record(path: Path) -> Record | None:
    """The first of `read_records`, without reading the rest; None for a file without one.

    Raises:
        DataError: DATASET_JSON, DATASET_UNREADABLE.
    """
    if (rows := table_rows(path)) is not None:
        return next((Record(row, where) for where, row in rows), None)
    size = 1 << 16
    with open_text(path) as file:
        text = file.read(size)
        while text:
            start = text.lstrip()
            array = start.startswith("[")
            body = start[1:].lstrip() if array else start
            if array and body.startswith("]"):
                return None
            try:
                return _record(
                    json.JSONDecoder().raw_decode(body)[0], f"{path.name}: item 0" if array else f"{path.name}:1"
                )
            except RecursionError as error:
                raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
            except ValueError as error:
                more = file.read(size := 2 * size)
                if not more:
                    if not body:
                        return None
                    raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
                text += more
    return None


def _lines(path: Path, file: IO[str]) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}", code="DATASET_JSON") from error
        yield _record(data, where)


def _items(path: Path, file: IO[str]) -> Iterator[Record]:
    try:
        items = json.load(file)
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name}:{error.lineno}: not JSON: {error.msg}", code="DATASET_JSON") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
    for number, data in enumerate(items):
        yield _record(data, f"{path.name}: item {number}")


def _record(data: object, where: str) -> Record:
    if not isinstance(data, dict):
        raise DataError(f"{where}: not a JSON object but {json.dumps(data)[:60]}.", code="DATASET_JSON")
    return Record(data, where)
