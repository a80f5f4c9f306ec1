"""Records from tables: CSV, TSV, Parquet, and folders that the library `datasets` saved.

Invariant: a row is a plain object as a line of JSON would give it, with where it stands; what is missing to read a kind
is said, and nothing is fetched.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")

Row = tuple[str, dict[str, Any] | DataError]
"""Where a row stands, and what it is, or what is wrong with it alone."""
_UNDECODED = re.compile("[\udc80-\udcff]")


def table_rows(path: Path) -> Iterator[Row] | None:
    """(where, row) of each row of a table; None for what is none. Raises `DataError` DATASET_UNREADABLE."""
    name = path.name.lower()
    if is_saved(path):
        return _saved(path)
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith((".csv", ".tsv")):
        return _cells(path)
    return None


def undecoded(text: str) -> bool:
    """Whether a text read with `surrogateescape` holds bytes that are no UTF-8."""
    return _UNDECODED.search(text) is not None


def is_saved(path: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote this folder."""
    return path.is_dir() and (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def saved_splits(path: Path) -> list[str]:
    """The splits of a folder that `DatasetDict.save_to_disk` wrote; empty for any other."""
    if not (path / "dataset_dict.json").is_file():
        return []
    return sorted(folder.name for folder in path.iterdir() if is_saved(folder))


def _cells(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            head = file.read(65536)
            file.seek(0)
            dialect: Any = csv.excel_tab if path.name.lower().endswith(".tsv") else csv.excel
            first = head.partition("\n")[0]
            if dialect is csv.excel and first.count(";") > first.count(","):
                reader = csv.DictReader(file, delimiter=";")
            else:
                reader = csv.DictReader(file, dialect=dialect)
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                if row.pop(None, None):
                    why = f"line {reader.line_num} has more cells than the first line has names"
                    yield where, _unreadable(path, why)
                elif any(undecoded(value) for value in row.values() if value):
                    yield where, _unreadable(path, f"line {reader.line_num} is not UTF-8")
                else:
                    yield where, {key: value or None for key, value in row.items()}
    except (OSError, csv.Error) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise _missing(path, "pyarrow") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{path.name}: row {number}", row
                    number += 1
    except (ArrowException, OSError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _saved(path: Path) -> Iterator[Row]:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise _missing(path, "datasets") from error
    try:
        rows = load_from_disk(str(path))
    except Exception as error:  # a damaged folder fails with whatever Arrow or the library says
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    for number, row in enumerate(rows):
        yield f"{path.name}: row {number}", dict(row)


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{path.name}: cannot be read: {why}.", code="DATASET_UNREADABLE")


def _missing(path: Path, package: str) -> DataError:
    return DataError(
        f"{path.name}: cannot be read without the package {package!r}.",
        code="DATASET_UNREADABLE",
        hint='pip install "jade-graph[train]"',
    )
