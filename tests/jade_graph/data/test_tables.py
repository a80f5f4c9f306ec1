"""Tables, saved data sets and answers in every form: read as what they mean, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.data import load_dataset
from jade_graph.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"question": "Who painted it?", "answer": ["Marsh", "A. Marsh"]},
    {"question": "Is it old?", "answer": ["yes"]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def answers_of(path: Path) -> list[tuple[str, ...]]:
    return [question.answers for question in load_dataset(path).questions]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ('["politician", "political leader"]', ("politician", "political leader")),
        ("['politician', 'political leader']", ("politician", "political leader")),
        ("[not a list", ("[not a list",)),
        ('[{"a": 1}]', ('[{"a": 1}]',)),
        ("politician", ("politician",)),
        (True, ("yes",)),
        ([False, "never"], ("no", "never")),
        (float("nan"), ()),
        (1901, ("1901",)),
        (None, ()),
    ],
)
def test_answers_are_what_they_mean(value: Any, wanted: tuple[str, ...], tmp_path: Path) -> None:
    for field in ("golden_answers", "answers"):
        path = write(tmp_path / f"{field}.jsonl", [{"id": "1", "question": "Q?", field: value}])
        assert answers_of(path) == [wanted]


@pytest.mark.parametrize("value", [[float("nan")], [None], [["a"]], {"a": 1}])
def test_what_is_no_answer_is_an_error_with_its_line(value: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"id": "1", "question": "Q?", "golden_answers": value}])
    with pytest.raises(DataError, match=r"x\.jsonl:1.*golden_answers") as caught:
        load_dataset(path)
    assert caught.value.error_code == "DATASET_FIELD"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q?", "answer": ["a", "b"]},
        {"id": 7, "question": "Q?", "possible_answers": '["a", "b"]'},
        {"question_id": "7", "question": "Q?", "answer": {"value": "a", "aliases": ["a", "b"]}},
        {"id": "7", "question": "Q?", "context": None, "answers": {"text": ["a", "b"], "answer_start": [1, 2]}},
    ],
)
def test_the_keys_of_open_sets(row: dict[str, Any], tmp_path: Path) -> None:
    row.pop("context", None)
    format = "open" if "answers" in row else None
    (question,) = load_dataset(write(tmp_path / "x.jsonl", [row]), format=format).questions
    assert question.answers == ("a", "b")
    assert question.id in ("1", "7")


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolons", "parquet", "saved", "splits", "jsonl"])
def test_every_table_is_the_same_data_set(kind: str, tmp_path: Path) -> None:
    split = None
    if kind == "jsonl":
        path = write(tmp_path / "x.jsonl", ROWS)
    elif kind in ("csv", "tsv", "semicolons"):
        mark = {"csv": ",", "tsv": "\t", "semicolons": ";"}[kind]
        path = tmp_path / f"x.{'tsv' if kind == 'tsv' else 'csv'}"
        cells = [json.dumps(row["answer"]).replace('"', '""') for row in ROWS]
        lines = [f'{row["question"]}{mark}"{cell}"' for row, cell in zip(ROWS, cells, strict=True)]
        path.write_text(f"\ufeffquestion{mark}answer\r\n" + "\r\n".join(lines) + "\r\n")
    elif kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        path = tmp_path / "x.parquet"
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        from datasets import Dataset, DatasetDict

        path = tmp_path / "saved"
        rows = Dataset.from_list(ROWS)
        if kind == "splits":
            DatasetDict({"dev": rows, "train": rows.select([0])}).save_to_disk(path)
            split = "dev"
            with pytest.raises(DataError) as caught:
                load_dataset(path)
            assert caught.value.known == ("dev", "train")
        else:
            rows.save_to_disk(path)
    data = load_dataset(path, split=split)
    assert [(q.id, q.question, q.answers) for q in data.questions] == [
        ("1", "Who painted it?", ("Marsh", "A. Marsh")),
        ("2", "Is it old?", ("yes",)),
    ]


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_damaged_table_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"question,answer\nQ?,a,b,c,d\n\xff\xfe")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / name, format="open")
    assert caught.value.error_code == "DATASET_UNREADABLE"
    assert name in str(caught.value)


def test_json_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{" + "[" * 200_000)
    with pytest.raises(DataError, match=r"x\.jsonl:1: not JSON") as caught:
        load_dataset(tmp_path / "x.jsonl")
    assert caught.value.error_code == "DATASET_JSON"


def test_questions_beside_notes_are_documents(tmp_path: Path) -> None:
    from jade_graph.data import detect_format

    write(tmp_path / "faq.jsonl", [{"id": "1", "question": "Q?", "answers": ["a"]}])
    assert detect_format(tmp_path) == "jade"
    (tmp_path / "README.md").write_text("About")
    assert detect_format(tmp_path) == "jade"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("Notes")
    assert detect_format(tmp_path) is None
