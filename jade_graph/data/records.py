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

from jade_graph.data.tables import table_rows, undecoded
from jade_graph.errors import DataError

T = TypeVar("T")

Broken = tuple[str, DataError]
"""Where something stands that is no record, and what is wrong with it."""
_CHUNK, _LOOKED_AT = 1 << 16, 1000

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
def open_text(path: Path, errors: str = "strict") -> Iterator[IO[str]]:
    """A text file, gzip or not, a byte-order mark ignored. Raises `DataError` DATASET_UNREADABLE."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", errors=errors)
            if path.name.endswith(".gz")
            else path.open(encoding="utf-8-sig", errors=errors) as file
        ):
            yield file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path.name}: cannot be read: {type(error).__name__}: {error}", code="DATASET_UNREADABLE"
        ) from error


def read_records(path: Path, broken: list[Broken] | None = None) -> Iterator[Record]:
    """The objects of a JSON-lines file, of a JSON file that holds a list of them, or the rows of a table.

    Args:
        broken: takes what of the lines, items and rows is none; without it, the first of them is raised.

    Raises:
        DataError: DATASET_JSON and DATASET_UNREADABLE, with file and line where they are known.
    """
    if (rows := table_rows(path)) is not None:
        for where, row in rows:
            if isinstance(row, DataError):
                _give(broken, where, row)
            else:
                yield Record(row, where)
        return
    with open_text(path, "surrogateescape") as file:
        first = ""
        while not first.strip():
            first = file.readline()
            if not first:
                return
        file.seek(0)
        if first.lstrip().startswith("["):
            yield from _items(path, file, broken)
        else:
            yield from _lines(path, file, broken)


def first_record(path: Path) -> Record | None:
    """The first of `read_records`, without reading the rest; None for a file without one.

    Raises:
        DataError: DATASET_JSON, DATASET_UNREADABLE: of the first line, where none of the first thousand is an object.
    """
    if (rows := table_rows(path)) is not None:
        return next((Record(row, where) for where, row in rows if not isinstance(row, DataError)), None)
    with open_text(path, "surrogateescape") as file:
        text = ""
        while not text.strip():
            text = file.readline(_CHUNK)
            if not text:
                return None
        if text.lstrip().startswith("["):
            return _first_item(path, file, text)
        file.seek(0)
        broken: list[Broken] = []
        found = next(_lines(path, file, broken, most=_LOOKED_AT), None)
    if found is None and broken:
        raise broken[0][1]
    return found


def _first_item(path: Path, file: IO[str], text: str) -> Record | None:
    """Of a list whose text begins with `text`."""
    size = _CHUNK
    while True:
        body = text.lstrip()[1:].lstrip()
        if body.startswith("]"):
            return None
        try:
            return _record(json.JSONDecoder().raw_decode(body)[0], f"{path.name}: item 0")
        except RecursionError as error:
            raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
        except ValueError as error:
            more = file.read(size := 2 * size)
            if not more:
                raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
            text += more


def _lines(path: Path, file: IO[str], broken: list[Broken] | None, most: int | None = None) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if most is not None and number > most:
            return
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            if undecoded(line):
                raise DataError(f"{where}: not UTF-8.", code="DATASET_UNREADABLE")
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON: {error}", code="DATASET_JSON") from error
            found = _record(data, where)
        except DataError as error:
            _give(broken, where, error)
            continue
        yield found


def _items(path: Path, file: IO[str], broken: list[Broken] | None) -> Iterator[Record]:
    text = file.read()
    if undecoded(text):
        number = next(i for i, line in enumerate(text.split("\n"), start=1) if undecoded(line))
        raise DataError(f"{path.name}:{number}: not UTF-8.", code="DATASET_UNREADABLE")
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name}:{error.lineno}: not JSON: {error.msg}", code="DATASET_JSON") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON: {error}", code="DATASET_JSON") from error
    for number, data in enumerate(items):
        where = f"{path.name}: item {number}"
        try:
            found = _record(data, where)
        except DataError as error:
            _give(broken, where, error)
            continue
        yield found


def _give(broken: list[Broken] | None, where: str, error: DataError) -> None:
    if broken is None:
        raise error
    broken.append((where, error))


def _record(data: object, where: str) -> Record:
    if not isinstance(data, dict):
        raise DataError(f"{where}: not a JSON object but {json.dumps(data)[:60]}.", code="DATASET_JSON")
    return Record(data, where)
