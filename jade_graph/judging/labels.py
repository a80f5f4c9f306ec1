"""Labels on disk: what an encoder learns from, and what people said.

Invariant: a passage without a label is not written; a file is whole or not there. One line is one search.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError
from jade_graph.judging.cascade import Judgement
from jade_graph.judging.cases import Case
from jade_graph.runs.text import clean
from jade_graph.settings.lines import write_whole


def training_rows(cases: Sequence[Case], judged: Sequence[Judgement]) -> Iterator[dict[str, Any]]:
    """A line for each search with a label.

    `{"query", "documents": [{"id", "text", "label", "level", "votes"}], "source"}`.

    `label` is the level from 0 to 1; `text` is the passage as a corpus embeds it (title, line break, text). `votes` are
    from the top level down. `source` is where it comes from: run, search, judge and its settings.
    """
    for case, each in zip(cases, judged, strict=True):
        top = each.about["levels"] - 1
        documents = [
            {
                "id": label.id,
                "text": str(candidate.passage),
                "label": label.level / top,
                "level": label.level,
                "votes": list(label.votes),
            }
            for candidate, label in zip(case.candidates, each.labels, strict=True)
            if label.level is not None
        ]
        if documents:
            source = {
                "run_id": case.run_id,
                "attempt": case.attempt,
                "seq": case.seq,
                "question_id": case.question_id,
                "question": case.question,
                "corpus_id": case.corpus_id,
                "backbone_version": case.version,
                **each.about,
            }
            yield {"query": case.query, "documents": documents, "source": source}


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON lines; the file takes its name when it is whole. Returns how many there are."""
    return write_whole(path, (clean(json.dumps(row, ensure_ascii=False, default=str)) for row in rows))


def read(path: Path) -> dict[tuple[str, str], float]:
    """Labels from 0 to 1 by (query, passage id): lines as `write` writes them, or one passage a line.

    Of one passage a line `{"query", "id", "label"}` is needed. Of several labels of one passage the mean counts.

    Raises:
        DataError: JUDGE_LABELS, with the line.
    """
    found: dict[tuple[str, str], list[float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, 0, str(error)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            each = row.get("documents", [row])
            for document in each:
                label = float(document["label"])
                if isinstance(document["label"], bool) or not 0.0 <= label <= 1.0:
                    raise ValueError(f"the label {document['label']!r} is not between 0 and 1")
                found.setdefault((str(row["query"]), str(document["id"])), []).append(label)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise _broken(path, number, what) from error
    if not found:
        raise _broken(path, 0, "it holds no label")
    return {key: sum(values) / len(values) for key, values in found.items()}


def _broken(path: Path, line: int, why: str) -> DataError:
    at = f", line {line}" if line else ""
    return DataError(
        f"{str(path)!r}{at}: {why}.",
        code="JUDGE_LABELS",
        hint='lines like {"query": "..", "id": "..", "label": 0.75}, labels from 0 to 1',
    )


__all__ = ["read", "training_rows", "write"]
