"""Graded labels: how useful passages are for a query. What an encoder learns from.

Invariant: one object a line, and nothing beside it:
`{"query": "..", "documents": [{"id": "..", "text": "..", "label": 0.0 to 1.0, "title": ".."}, ..], "source": {..}}`.
`text` and the optional `title` are those of the passage; `source` says where the labels come from. Whoever writes such
a file (feedback that was fitted, a judge, gold passages of a data set) may be mixed with any other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError
from jade_graph.settings.lines import write_whole
from jade_graph.types import Passage


@dataclass(frozen=True, slots=True)
class Graded:
    """A passage and its label: 0 of no use, 1 of the most."""

    id: str
    text: str
    label: float
    title: str = ""

    @property
    def passage(self) -> Passage:
        return Passage(self.id, self.text, self.title)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query and its passages, in any order."""

    query: str
    documents: tuple[Graded, ...]
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def teaches(self) -> bool:
        """Whether one passage is better than another: else there is nothing to learn from it."""
        labels = [document.label for document in self.documents]
        return bool(labels) and max(labels) > min(labels)

    def as_dict(self) -> dict[str, Any]:
        documents: list[dict[str, Any]] = [
            {"id": d.id, "text": d.text, "label": d.label, **({"title": d.title} if d.title else {})}
            for d in self.documents
        ]
        told = {"source": dict(self.source)} if self.source else {}
        return {"query": self.query, "documents": documents, **told}


def write_labels(path: Path, rows: Iterable[Labelled]) -> int:
    """Write labels, whole or not at all. Returns how many lines."""
    return write_whole(path, (json.dumps(row.as_dict(), ensure_ascii=False) for row in rows))


def read_labels(path: Path) -> list[Labelled]:
    """Every line of a file. Raises `DataError` LABELS_FILE with the line, LABELS_EMPTY."""
    number = 0
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    rows.append(_row(json.loads(line)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{str(path)!r}, line {number}, holds no labels: {type(error).__name__}: {error}",
            code="LABELS_FILE",
            hint='{"query": "..", "documents": [{"id": "..", "text": "..", "label": 0.5}, ..]} on each line',
        ) from error
    if not rows:
        raise DataError(
            f"{str(path)!r} holds no line of labels.", code="LABELS_EMPTY", hint="jade train-encoder --help"
        )
    return rows


def holds_labels(path: Path) -> bool:
    """Whether a file is one of labels, rather than of questions: its first line has documents, or is no JSON at all."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(next((line for line in file if line.strip()), "null"))
    except (ValueError, OSError):
        return path.suffix == ".jsonl"
    return not isinstance(first, dict) or "documents" in first


def query_hash(query: str) -> str:
    """Names a query in the folder of an encoder that learned from it, so that it is not judged by it."""
    return hashlib.sha256(" ".join(query.split()).casefold().encode("utf-8", errors="surrogatepass")).hexdigest()[:10]


def digest(rows: Sequence[Labelled]) -> str:
    """Names labels by their content, whatever the order of lines and documents. 16 hexadecimal digits."""
    each = sorted(
        json.dumps([r.query, sorted((d.id, d.title, d.text, d.label) for d in r.documents)], ensure_ascii=False)
        for r in rows
    )
    return hashlib.sha256("\n".join(each).encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


def _row(record: Mapping[str, Any]) -> Labelled:
    query = record["query"]
    if not isinstance(query, str) or not query.strip():
        raise ValueError("the query is no text")
    documents = tuple(_graded(one) for one in record["documents"])
    known: dict[str, Graded] = {}
    for document in documents:
        if known.setdefault(document.id, document) is not document:
            raise ValueError(f"the document {document.id!r} is there twice")
    return Labelled(query, documents, dict(record.get("source") or {}))


def _graded(record: Mapping[str, Any]) -> Graded:
    key, text, title, label = record["id"], record["text"], record.get("title") or "", record["label"]
    if not all(isinstance(value, str) for value in (key, text, title)) or not (text.strip() or title.strip()):
        raise ValueError(f"the document {key!r} has no text")
    if isinstance(label, bool) or not isinstance(label, int | float) or not (math.isfinite(label) and 0 <= label <= 1):
        raise ValueError(f"the label {label!r} of {key!r} is no number from 0 to 1")
    return Graded(key, text, float(label), title)
