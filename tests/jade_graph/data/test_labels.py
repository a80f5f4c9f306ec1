"""Graded labels in a file: what is written is read; what is no label is an error with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.data.labels import Graded, Labelled, digest, read_labels, write_labels
from jade_graph.errors import DataError

ROWS = [
    Labelled("who?", (Graded("a", "Ann", 1.0, "Title"), Graded("b", "Bo", 0.25)), {"kind": "feedback", "events": 3}),
    Labelled("wo ist Zürich?", (Graded("a", "line\u2028break", 0.0),)),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert write_labels(tmp_path / "new" / "labels.jsonl", ROWS) == 2
    assert read_labels(tmp_path / "new" / "labels.jsonl") == ROWS
    assert [row.teaches for row in ROWS] == [True, False]


def test_a_digest_names_the_content(tmp_path: Path) -> None:
    other = [ROWS[1], Labelled("who?", ROWS[0].documents[::-1])]
    assert digest(ROWS) == digest(other)
    assert digest(ROWS) != digest(ROWS[:1])


DOCUMENT = {"id": "a", "text": "Ann", "label": 0.5}


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"documents": [DOCUMENT]},
        {"query": " ", "documents": [DOCUMENT]},
        {"query": "q", "documents": [{**DOCUMENT, "label": 1.5}]},
        {"query": "q", "documents": [{**DOCUMENT, "label": float("nan")}]},
        {"query": "q", "documents": [{**DOCUMENT, "label": True}]},
        {"query": "q", "documents": [{**DOCUMENT, "label": "1"}]},
        {"query": "q", "documents": [{**DOCUMENT, "text": ""}]},
        {"query": "q", "documents": [{**DOCUMENT, "id": 3}]},
        {"query": "q", "documents": [DOCUMENT, {**DOCUMENT, "label": 1.0}]},
        {"query": "q", "documents": "a"},
    ],
)
def test_what_is_no_label_is_an_error_with_its_line(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n" + json.dumps({"query": "q", "documents": [DOCUMENT]}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match="line 3") as caught:
        read_labels(path)
    assert caught.value.error_code == "LABELS_FILE"


def test_an_empty_file_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "empty")
    assert caught.value.error_code == "LABELS_EMPTY"
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "none")
    assert caught.value.error_code == "LABELS_FILE"
