"""Files of many documents: JSON lines, JSON, CSV and other tables; a record each.

Invariant: a bad line is named with its number and costs nothing but itself; no line and no unpacked file grows beyond
what was allowed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, cast

from jade_graph.retrieval import office
from jade_graph.retrieval.reading import Document, Found, UnreadableError, opened, parsed, read_bytes, text_of

TEXT_FIELDS = ("text", "contents", "content", "body", "passage")
ID_FIELDS = ("id", "_id", "docid", "doc_id")
_ANSWERS = ("answer", "answers", "response")
_MOST_UNPACKED = 100  # times the packed size, beyond `max_bytes`: texts pack to a third or a tenth


def json_lines(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
    packing = path.name.lower().endswith(".gz")
    with opened(path) as packed, gzip.open(packed) if packing else nullcontext(packed) as file:
        size = path.stat().st_size
        most = max(found.max_bytes, _MOST_UNPACKED * size) if packing else size
        lines = _lines(cast(IO[bytes], file), source, most, found)
        for number, raw in lines:
            where = f"{source}:{number}"
            try:
                document = from_record(parsed(raw), where, source)
            except UnreadableError as error:
                found.skip(where, str(error))
            else:
                yield document, where


def _lines(file: IO[bytes], source: str, most: int, found: Found) -> Iterator[tuple[int, bytes]]:
    number = read = 0
    while True:
        try:
            raw = file.readline(found.max_bytes + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            found.skip(source, f"damaged after line {number}: {error}")
            return
        if not raw:
            return
        number += 1
        read += len(raw)
        if read > most:
            found.skip(
                f"{source}:{number}", f"unpacks to more than {_MOST_UNPACKED} times its size: the rest is left out"
            )
            return
        if len(raw) > found.max_bytes:
            found.skip(f"{source}:{number}", f"a line of more than {found.max_bytes / 2**20:.0f} MiB")
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(found.max_bytes + 1)
            continue
        if raw.strip():
            yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw


def json_file(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
    """A list of records, an object with one, or any object as lines of `key: value`."""
    value = parsed(text_of(read_bytes(path, found), source, found))
    records = value
    if isinstance(value, dict) and not _text_of(value):
        lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(i, dict) for i in v)]
        records = lists[0] if len(lists) == 1 else [value]
    elif not isinstance(value, list):
        records = [value]
    for number, record in enumerate(records):
        where = source if len(records) == 1 else f"{source}: item {number}"
        try:
            if isinstance(record, dict) and not _text_of(record):
                yield _flat(_leaves(record), record, where, source), where
            else:
                yield from_record(record, where, source), where
        except UnreadableError as error:
            found.skip(where, str(error))


def table(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
    """CSV or TSV with names in its first line; a document of each row."""
    text = text_of(read_bytes(path, found), source, found)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:65536], ",;\t|")
    except csv.Error:
        dialect = csv.excel_tab if source.lower().endswith(".tsv") else csv.excel
    reader = csv.reader(io.StringIO(text, newline=""), dialect)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, row) for row in reader)
    except csv.Error as error:
        found.skip(f"{source}:{reader.line_num}", f"the table ends here: {error}")
    yield from _rows(rows, source, found)


def workbook(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
    for name, rows in office.sheets(read_bytes(path, found), found.max_bytes):
        yield from _rows(list(enumerate(rows, start=1)), source, found, sheet=f"{name}!")


def _rows(
    rows: Sequence[tuple[int, list[str]]], source: str, found: Found, *, sheet: str = ""
) -> Iterator[tuple[Document, str]]:
    filled = [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    if len(filled) < 2:
        found.skip(f"{source}:{sheet}" if sheet else source, "no row under its names" if filled else "empty")
        return
    names = [name.strip() or f"column {i}" for i, name in enumerate(filled[0][1], start=1)]
    for number, row in filled[1:]:
        where = f"{source}:{sheet}{number}"
        more = [f"column {i}" for i in range(len(names) + 1, len(row) + 1)]
        record: dict[str, Any] = dict(zip([*names, *more], (cell.strip() for cell in row), strict=False))
        if _text_of(record):
            yield from_record(record, where, source), where
        else:
            yield _flat(((k, v) for k, v in record.items() if v), record, where, source), where


def from_record(record: Any, where: str, source: str) -> Document:
    """The document in a record. Raises `UnreadableError` where there is none."""
    if not isinstance(record, dict):
        raise UnreadableError("not a JSON object")
    name = _text_of(record)
    if not name:
        raise UnreadableError(f"no text field (one of {', '.join(TEXT_FIELDS)})")
    title = str(record.get("title") or "")
    if name == "question":
        title, text = record["question"], _answer(record)
    else:
        text = record[name]
    if name == "contents" and not title and "\n" in text:  # Pyserini and FlashRAG: the title is the first line
        first, _, rest = text.partition("\n")
        title, text = first.strip().strip('"'), rest
    if not (text.strip() or title.strip()):
        raise UnreadableError("empty")
    metadata = record.get("metadata")
    return Document(_key(record, where), text, title, source, metadata=metadata if isinstance(metadata, dict) else {})


def _text_of(record: dict[str, Any]) -> str:
    """The field with the text; "question" for a question with its answer; empty where there is none."""
    if (name := next((f for f in TEXT_FIELDS if isinstance(record.get(f), str)), None)) is not None:
        return name
    return "question" if isinstance(record.get("question"), str) and _answer(record) else ""


def _answer(record: dict[str, Any]) -> str:
    value = next((record[f] for f in _ANSWERS if record.get(f)), "")
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _key(record: dict[str, Any], where: str) -> str:
    key = next((record[f] for f in ID_FIELDS if record.get(f) not in (None, "")), None)
    return str(key) if key is not None else where


def _flat(leaves: Iterator[tuple[str, Any]], record: dict[str, Any], where: str, source: str) -> Document:
    text = "\n".join(f"{name}: {value}" for name, value in leaves)
    if not text.strip():
        raise UnreadableError("empty")
    title = next((str(record[f]) for f in ("title", "name") if record.get(f)), "")
    return Document(_key(record, where), text, title, source)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in an object that is a text or a number."""
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        path, found = stack.pop()
        if isinstance(found, dict):
            stack += [(f"{path}.{key}" if path else str(key), inner) for key, inner in reversed(found.items())]
        elif isinstance(found, list):
            stack += [(path, inner) for inner in reversed(found)]
        elif found not in (None, ""):
            yield path, found if isinstance(found, str) else json.dumps(found)
