"""Training labels from estimates: a query a line, its passages with a label and its interval.

Invariant: a label lies within 0 and 1, and its interval holds it; a line says what it was made of, and whose events
count in it (pseudonyms), so that `forget` finds it. Passages without a text are left out where texts are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jade_graph.errors import DataError
from jade_graph.feedback.estimators import Estimates
from jade_graph.feedback.log import Log
from jade_graph.settings.lines import write_whole


@dataclass(slots=True)
class Labels:
    """Lines to write, and what was left out: passages that the corpus does not have, or that were shown too seldom."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    without_text: int = 0
    too_few: int = 0

    @property
    def documents(self) -> int:
        return sum(len(line["documents"]) for line in self.lines)


def make_labels(
    log: Log,
    found: Estimates,
    source: Mapping[str, Any],
    *,
    texts: Mapping[str, str] | None = None,
    min_shown: int = 1,
) -> Labels:
    """Label lines, the queries in the log's order, the best passage first.

    Args:
        source: of every line; `sessions` and `users` of its query are added.
        texts: by passage id; None: lines without texts.
        min_shown: leave out passages that were shown less often.
    """
    out, by_query = Labels(), dict[int, list[int]]()
    for pair, (query, document) in enumerate(log.pairs):
        if found.shown[pair] < min_shown:
            out.too_few += 1
        elif texts is not None and document not in texts:
            out.without_text += 1
        else:
            by_query.setdefault(query, []).append(pair)
    of_query = log.query[log.pair]
    order = np.argsort(of_query, kind="stable")
    bounds = np.searchsorted(of_query[order], np.arange(len(log.queries) + 1))
    for query, pairs in by_query.items():
        rows = order[bounds[query] : bounds[query + 1]]
        documents = [_document(log, found, pair, texts) for pair in pairs]
        documents.sort(key=lambda d: (-d["label"], -d["interval"][0], d["id"]))
        more = {
            "sessions": len(np.unique(log.session[rows])),
            "users": sorted(log.users[u] for u in np.unique(log.user[rows]).tolist()),
        }
        out.lines.append({"query": log.queries[query], "documents": documents, "source": {**source, **more}})
    return out


def _document(log: Log, found: Estimates, pair: int, texts: Mapping[str, str] | None) -> dict[str, Any]:
    document = log.pairs[pair][1]
    label = float(found.label[pair])
    told: dict[str, Any] = {"id": document}
    if texts is not None:
        told["text"] = texts[document]
    return told | {
        "label": round(label, 6),
        "interval": [round(min(float(found.low[pair]), label), 6), round(max(float(found.high[pair]), label), 6)],
        "relevance": round(float(found.relevance[pair]), 6),
        "shown": int(found.shown[pair]),
        "clicks": int(found.clicks[pair]),
        "examined": round(float(found.examined[pair]), 3),
    }


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """JSONL, put in place whole."""
    write_whole(path, (json.dumps(line, ensure_ascii=False) for line in lines), errors="replace")


def forget_in(path: Path, user: str) -> int:
    """Take the lines that name a user (a pseudonym) out of a file of labels or events; how many.

    Raises:
        DataError: FEEDBACK_FILE, where a line cannot be read; nothing is changed then.
    """
    kept, gone = [], 0
    for number, line in enumerate(path.read_text("utf-8", errors="replace").rstrip("\n").split("\n"), 1):
        try:
            told = json.loads(line) if line.strip() else {}
        except ValueError as error:
            raise DataError(
                f"{path}:{number} is no JSON, so what it says of a user cannot be found: {error}.", code="FEEDBACK_FILE"
            ) from error
        if _names(told, user):
            gone += 1
        else:
            kept.append(line)
    if gone:
        write_whole(path, kept)
    return gone


def _names(told: Any, user: str) -> bool:
    if not isinstance(told, Mapping):
        return False
    source = told.get("source")
    users = source.get("users", ()) if isinstance(source, Mapping) else ()
    return told.get("user") == user or (isinstance(users, list) and user in users)
