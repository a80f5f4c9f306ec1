"""Reading folders of documents: text, Markdown, HTML, PDF and JSON lines.

Invariant: one bad file never ends the reading; it is named with its reason and counted. Only when nothing at all can
be read is that an error.
"""

from __future__ import annotations

import codecs
import gzip
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError
from jade_graph.retrieval.html import html_to_markdown

MAX_BYTES = 64 * 1024 * 1024
"""Larger files are skipped (JSON lines are read line by line, and have no limit)."""

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".html", ".htm", ".pdf", ".jsonl", ".jsonl.gz")


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
    """A file (or line of a file) that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Documents:
    """What was read. `files` counts the files that gave at least one document."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...] = ()
    files: int = 0


class _UnreadableError(Exception):
    """Why one file gives nothing."""


def read_documents(
    path: Path | str, *, max_bytes: int = MAX_BYTES, progress: Callable[[int, int], None] | None = None
) -> Documents:
    """Read one file, or every file of a known kind under a folder (hidden ones left out), in order of name.

    Args:
        progress: called with (files done, files in all).

    Raises:
        DataError: DOCUMENTS_NOT_FOUND when the path does not exist; DOCUMENTS_UNREADABLE when nothing gave a text.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"there is no file or folder {str(path)!r}.", code="DOCUMENTS_NOT_FOUND", hint="check the path")
    paths = sorted(_files(root)) if root.is_dir() else [root]
    base = root if root.is_dir() else root.parent
    documents: list[Document] = []
    skipped: list[Skipped] = []
    files = 0
    for done, file in enumerate(paths, start=1):
        source = file.relative_to(base).as_posix()
        before = len(documents)
        try:
            documents.extend(_read(file, source, max_bytes, skipped))
        except (_UnreadableError, OSError) as error:
            skipped.append(Skipped(source, str(error)))
        files += len(documents) > before
        if progress is not None:
            progress(done, len(paths))
    if not documents:
        reasons = "; ".join(f"{s.source}: {s.reason}" for s in skipped[:3])
        raise DataError(
            f"no text could be read from {str(path)!r}"
            + (f" ({reasons})." if reasons else ": no file of a known kind."),
            code="DOCUMENTS_UNREADABLE",
            known=SUFFIXES,
            hint="name a folder that holds such files",
        )
    return Documents(tuple(documents), tuple(skipped), files)


def _files(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith("."))
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(folder) / name


def _read(path: Path, source: str, max_bytes: int, skipped: list[Skipped]) -> Iterator[Document]:
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise _UnreadableError(f"of no known kind ({', '.join(SUFFIXES)})")
    if name.endswith((".jsonl", ".jsonl.gz")):
        yield from _read_jsonl(path, source, skipped)
        return
    size = path.stat().st_size
    if size == 0:
        raise _UnreadableError("empty")
    if size > max_bytes:
        raise _UnreadableError(f"{size / 2**20:.0f} MiB, more than the limit of {max_bytes / 2**20:.0f} MiB")
    title, markdown = path.stem, False
    if name.endswith(".pdf"):
        text, title = _read_pdf(path, title)
    else:
        text = decode(path.read_bytes(), html=name.endswith((".html", ".htm")))
        if name.endswith((".html", ".htm")):
            page = html_to_markdown(text)
            text, title, markdown = page.text, page.title or title, True
        elif name.endswith((".md", ".markdown")):
            markdown = True
            heading = re.search(r"^#[ \t]+(.+?)[ \t]*#*$", text, re.MULTILINE)
            title = heading[1] if heading else title
    if not text.strip():
        raise _UnreadableError("no text in it" + (" (a scan needs OCR first)" if name.endswith(".pdf") else ""))
    yield Document(source, text, title, source, markdown)


def decode(data: bytes, *, html: bool = False) -> str:
    """Bytes to text: a byte-order mark, an HTML charset, UTF-8, and Windows-1252 as the last resort.

    Raises `_UnreadableError` for binary data, which no encoding makes text.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\x00" in data[:8192]:
        raise _UnreadableError("binary, not text")
    declared = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", data[:4096], re.IGNORECASE) if html else None
    for name in [declared[1].decode("ascii")] if declared else []:
        try:
            return data.decode(name)
        except (LookupError, UnicodeDecodeError):  # a page that is wrong about itself
            break
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _read_pdf(path: Path, title: str) -> tuple[str, str]:
    from pypdf import PdfReader

    log = logging.getLogger("pypdf")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns about every oddity of a file it reads well
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _UnreadableError("encrypted")
        pages = [page.extract_text() for page in reader.pages]
        named = (reader.metadata.title or "").strip() if reader.metadata else ""
    except _UnreadableError:
        raise
    except Exception as error:  # a damaged file fails anywhere in the parser, with whatever comes up there
        raise _UnreadableError(f"not a readable PDF ({type(error).__name__}: {error})") from error
    finally:
        log.setLevel(level)
    text = "\n\n".join(_unbroken(page).strip() for page in pages)
    return text, named or title


def _unbroken(page: str) -> str:
    """Lines of a PDF are lines of print: join them, and mend words broken at the end of a line."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", page))


_TEXT_FIELDS = ("text", "contents", "content", "body", "passage")
_ID_FIELDS = ("id", "_id", "docid", "doc_id")


def _read_jsonl(path: Path, source: str, skipped: list[Skipped]) -> Iterator[Document]:
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        number = 0
        lines = iter(file)
        while True:
            try:
                raw = next(lines, None)
            except (EOFError, gzip.BadGzipFile) as error:
                skipped.append(Skipped(source, f"damaged after line {number}: {error}"))
                return
            if raw is None:
                return
            number += 1
            if not raw.strip():
                continue
            where = f"{source}:{number}"
            try:
                record = json.loads(raw)
            except ValueError as error:
                skipped.append(Skipped(where, f"not JSON ({error})"))
                continue
            document = _from_record(record, where, source)
            if isinstance(document, str):
                skipped.append(Skipped(where, document))
            else:
                yield document


def _from_record(record: Any, where: str, source: str) -> Document | str:
    """The document in a JSON record, or why there is none."""
    if not isinstance(record, dict):
        return "not a JSON object"
    name = next((f for f in _TEXT_FIELDS if isinstance(record.get(f), str)), None)
    if name is None:
        return f"no text field (one of {', '.join(_TEXT_FIELDS)})"
    text, title = record[name], str(record.get("title") or "")
    if name == "contents" and not title and "\n" in text:  # Pyserini and FlashRAG: the title is the first line
        first, _, rest = text.partition("\n")
        title, text = first.strip().strip('"'), rest
    if not (text.strip() or title.strip()):
        return "empty"
    key = next((record[f] for f in _ID_FIELDS if record.get(f) not in (None, "")), None)
    metadata = record.get("metadata")
    return Document(
        str(key) if key is not None else where,
        text,
        title,
        source,
        metadata=metadata if isinstance(metadata, dict) else {},
    )
