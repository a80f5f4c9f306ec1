"""Finding the format, the split and the scheme; what a data set guarantees."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jade_graph import plugins
from jade_graph.data import Dataset, detect_format, load_dataset
from jade_graph.data.records import first_record, read_records
from jade_graph.errors import DataError, JadeError, PluginError
from jade_graph.types import Passage, Question

Write = Callable[[str, Any], Path]
QA = {"id": "1", "question": "Who?", "golden_answers": ["A"]}


def qa(n: int) -> list[dict[str, Any]]:
    return [{**QA, "id": str(i)} for i in range(n)]


def code(call: Callable[[], object]) -> str:
    with pytest.raises(JadeError) as caught:
        call()
    return caught.value.error_code


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ({"question": "?", "paragraphs": []}, "musique"),
        ({"question": "?", "context": [], "evidences": []}, "2wiki"),
        ({"question": "?", "context": []}, "hotpot"),
        ({"question": "?", "golden_answers": []}, "flashrag"),
        ({"id": 1, "question": "?", "answers": []}, "jade"),
        ({"id": 1, "text": "a document"}, None),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.json.gz"])
def test_format_is_told_from_the_fields(fields: dict[str, Any], format: str | None, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = json.dumps(fields) if name == "x.jsonl" else json.dumps([fields, fields], indent=1)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert detect_format(path) == format


def test_folders_of_documents_are_no_data_sets(write: Write, jade_folder: Path, beir_folder: Path) -> None:
    assert (detect_format(jade_folder), detect_format(beir_folder)) == ("jade", "beir")
    assert detect_format(write("docs/a.txt", "text").parent) is None
    write("docs/b.jsonl", [{"text": "x"}])
    assert detect_format(write("docs/c.jsonl", "not json").parent) is None
    assert detect_format(write("d.txt", "{}")) is None
    assert detect_format(jade_folder / "missing") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        (" \n\n", None),
        ("[]", None),
        ("[\n]", None),
        ('\n{"a": 1}\n{"b": 2}', {"a": 1}),
        ('  [\n {"a": 1}, nonsense', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        (json.dumps([{"a": "x" * 300_000}]), {"a": "x" * 300_000}),
    ],
)
def test_first_record_reads_no_more_than_it_needs(text: str, found: object, write: Write) -> None:
    first = first_record(write("x.json", text))
    assert (first.data if first else None) == found


@pytest.mark.parametrize("text", ['{"a": 1}\n\n{"b": 2}\n', '[{"a": 1}, {"b": 2}]', '\ufeff [{"a": 1},\n{"b": 2}]'])
def test_lines_and_lists_read_alike(text: str, write: Write) -> None:
    assert [r.data for r in read_records(write("x.json", text))] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"question": "?", "golden_answers": [], "id": 1}\n{"a": }', r"x\.jsonl:2: not JSON"),
        ('{"question": "?", "golden_answers": [], "id": 1}\n[1]', r"x\.jsonl:2: not a JSON object"),
        ('[{"question": "?",\n"golden_answers": [], "id": 1},\n{"a": }]', r"x\.jsonl:3: not JSON"),
        ('[{"question": "?", "golden_answers": [], "id": 1}, 5]', r"x\.jsonl: item 1: not a JSON object"),
    ],
)
def test_broken_json_is_named_by_line(text: str, where: str, write: Write) -> None:
    with pytest.raises(DataError, match=where) as caught:
        list(read_records(write("x.jsonl", text)))
    assert caught.value.error_code == "DATASET_JSON"


@pytest.mark.parametrize(
    ("odd", "reason", "first"),
    [
        (b'{"a": }', "not JSON", True),
        (b'{"a": }', "not JSON", False),
        (b"[1]", "not a JSON object", False),
        (b"[" * 200_000, "not JSON", False),
        (b'{"id": "9", "question": "Q\xff?", "answers": ["a"]}', "not UTF-8", True),
        (b'{"id": "9", "question": "Q\xff?", "answers": ["a"]}', "not UTF-8", False),
        (b'{"id": "9", "question": "Q?", "ans', "not JSON", False),
    ],
)
def test_a_line_that_is_no_record_is_left_out_and_named(odd: bytes, reason: str, first: bool, tmp_path: Path) -> None:
    good = [json.dumps({"id": str(i), "question": "Q?", "answers": ["a"]}).encode() for i in range(2)]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([odd, *good] if first else [*good, odd]))
    data = load_dataset(tmp_path / "x.jsonl")
    assert [q.id for q in data.questions] == ["0", "1"]
    assert [(o.id, reason in o.reason) for o in data.left_out] == [(f"x.jsonl:{1 if first else 3}", True)]


def test_an_item_and_a_row_that_are_no_record_are_left_out_and_named(write: Write) -> None:
    item = {"id": "1", "question": "Q?", "answers": ["a"]}
    data = load_dataset(write("x.json", json.dumps([item, 5])))
    assert ([q.id for q in data.questions], [o.id for o in data.left_out]) == (["1"], ["x.json: item 1"])
    table = "id,question,answer\n1,Q?,a\n2,Who, me?,b\n3,R?,c\n"
    data = load_dataset(write("x.csv", table))
    assert ([q.id for q in data.questions], [o.id for o in data.left_out]) == (["1", "3"], ["x.csv:3"])


def test_a_file_of_more_odd_lines_than_others_is_an_error(tmp_path: Path) -> None:
    """It is another kind of file, or another encoding."""
    line = json.dumps({"id": "1", "question": "Q?", "answers": ["a"]})
    (tmp_path / "x.jsonl").write_text(f"nonsense\n{line}\nnonsense\n")
    with pytest.raises(DataError, match=r"x\.jsonl:1: not JSON"):
        load_dataset(tmp_path / "x.jsonl")
    (tmp_path / "y.jsonl").write_text(f"{line}\n", encoding="utf-16")
    assert code(lambda: load_dataset(tmp_path / "y.jsonl")) == "DATASET_UNREADABLE"


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(QA).encode())[:-9])
    assert code(lambda: load_dataset(tmp_path / "x.jsonl.gz")) == "DATASET_UNREADABLE"
    (tmp_path / "y.jsonl").write_bytes(b'{"question": "\xff\xfe"}')
    assert code(lambda: load_dataset(tmp_path / "y.jsonl")) == "DATASET_UNREADABLE"


def test_limit_keeps_the_passages_and_changes_the_id(jade_folder: Path, write: Write) -> None:
    data = load_dataset(write("x.jsonl", qa(5)))
    some = load_dataset(write("x.jsonl", qa(5)), limit=2)
    assert [q.id for q in some.questions] == ["0", "1"]
    assert some.dataset_id != data.dataset_id
    assert some.dataset_id == load_dataset(write("y.jsonl", qa(2))).dataset_id
    assert data.head(9) is data.head(None) is data
    assert len(load_dataset(jade_folder, limit=1).passages) == 2
    assert code(lambda: data.head(0)) == "BAD_LIMIT"


def test_splits_of_a_folder(write: Write) -> None:
    write("set/train.jsonl", qa(3))
    write("set/v1.0_dev.jsonl", qa(2))
    folder = write("set/test.jsonl", qa(1)).parent
    assert load_dataset(folder, split="dev").name == "set/v1.0_dev"
    assert [len(load_dataset(folder, split=s)) for s in ("train", "dev", "test")] == [3, 2, 1]
    for split in (None, "validation"):
        with pytest.raises(DataError) as caught:
            load_dataset(folder, split=split)
        assert caught.value.error_code == "DATASET_SPLIT"
        assert caught.value.known == ("test", "train", "v1.0_dev")
    only = write("one/data.jsonl", qa(4)).parent
    assert len(load_dataset(only)) == 4


def test_a_split_that_nothing_has_is_refused(jade_folder: Path, write: Write) -> None:
    assert code(lambda: load_dataset(jade_folder, split="dev")) == "DATASET_SPLIT"
    assert code(lambda: load_dataset(write("x.jsonl", qa(1)), split="dev")) == "DATASET_SPLIT"


def test_what_is_no_data_set_is_refused(write: Write, tmp_path: Path) -> None:
    assert code(lambda: load_dataset(tmp_path / "nowhere")) == "DATASET_NOT_FOUND"
    assert code(lambda: load_dataset(write("docs/a.txt", "text").parent)) == "DATASET_FORMAT"
    assert code(lambda: load_dataset(write("x.jsonl", [{"a": 1}]))) == "DATASET_FORMAT"
    assert code(lambda: load_dataset(write("e.jsonl", ""))) == "DATASET_EMPTY"
    assert code(lambda: load_dataset(write("x.jsonl", qa(1)), format="musiqe")) == "UNKNOWN_DATASET_FORMAT"
    assert code(lambda: load_dataset(write("x.jsonl", qa(1)), colour="red")) == "DATASET_OPTION"
    assert code(lambda: load_dataset(write("b/queries.jsonl", "{}").parent, format="beir")) == "DATASET_SPLIT"
    assert code(lambda: load_dataset(write("j/corpus.jsonl", "{}").parent, format="jade")) == "DATASET_FILE"


def test_questions_alone_have_no_passages_and_answers_are_not_mislaid(write: Write) -> None:
    own = {"id": "1", "question": "Who?", "answers": ["Ann"]}
    assert load_dataset(write("mine.jsonl", [own])).passages == ()
    slip = {"id": "2", "question": "Who?", "answer": "Ann"}
    assert code(lambda: load_dataset(write("slip.jsonl", [slip]), format="jade")) == "DATASET_FIELD"
    assert [q["id"] for q in load_dataset(write("slip.jsonl", [own, slip])).odd] == ["2"]


def test_schemes_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def toy(rest: str, **options: Any) -> Dataset:
        asked.append((rest, options))
        return Dataset("toy", [Question(str(i), f"q{i}?") for i in range(4)])

    factories = {"toy": toy, "wrong": lambda rest: [rest]}
    monkeypatch.setattr(plugins, "names", lambda group: sorted(factories))
    monkeypatch.setattr(plugins, "load", lambda group, name: factories[name])
    assert len(load_dataset("toy:test?size=4")) == 4
    assert len(load_dataset("toy", limit=3, split="dev", seed=5)) == 3
    assert asked == [("test?size=4", {}), ("", {"limit": 3, "split": "dev", "seed": 5})]
    with pytest.raises(PluginError, match="gave list"):
        load_dataset("wrong:x")
    with pytest.raises(DataError) as caught:
        load_dataset("tox:x")
    assert caught.value.known == ("toy:", "wrong:")


def test_passages_are_read_once_and_only_when_asked_for() -> None:
    reads = []

    def source() -> list[Passage]:
        reads.append(1)
        return [Passage("a", "x")]

    data = Dataset("d", [Question("1", "?"), Question("2", "?")], source)
    half = data.head(1)
    assert reads == []
    assert half.passages == data.passages == (Passage("a", "x"),)
    assert reads == [1]


def test_a_data_set_without_questions_says_why() -> None:
    assert code(lambda: Dataset("d", [])) == "DATASET_EMPTY"
    assert code(lambda: Dataset("d", [Question("1", " ")])) == "DATASET_EMPTY"
    assert code(lambda: Dataset("d", [Question("", "a")])) == "DATASET_IDS"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Question("b", ""), "no text"),
        (Question("b", " \u00a0\n"), "no text"),
        (Question("b", 7), "int, no text"),  # type: ignore[arg-type]
        (Question("b", None), "NoneType, no text"),  # type: ignore[arg-type]
        (Question("b", "x" * 100_001), "100,001 characters"),
        (Question("", "Who?"), "no id"),
        (Question("b" * 201, "Who?"), "201 characters"),
        (Question("a", "Who else?"), "has this id"),
    ],
)
def test_an_odd_question_is_left_out_and_named(odd: Question, reason: str) -> None:
    first, last = Question("a", "Who?"), Question("z", "When?")
    data = Dataset("toy", [first, odd, last])
    assert data.questions == (first, last)
    (told,) = data.odd
    assert reason in told["reason"]
    assert told["id"].startswith((odd.id or "''")[:200])
    assert len(data.notes) == 1
    assert data.notes[0].startswith("1 w")  # "1 without a text left out: b", "1 with the id of another left out: a"
    assert data.sample(1).odd == data.head(1).odd == data.odd
    assert data.dataset_id == Dataset("toy", [first, last]).dataset_id


def test_dataset_id_covers_what_is_scored_and_not_metadata() -> None:
    base = Question("1", "?", ("a",), supporting=("p",))
    different = (
        base,
        Question("1", "??", ("a",), supporting=("p",)),
        Question("1", "?", ("b",), supporting=("p",)),
        Question("1", "?", ("a",)),
    )
    ids = {Dataset("d", [question]).dataset_id for question in different}
    assert len(ids) == 4
    other = Question("1", "?", ("a",), supporting=("p",), metadata={"x": 1})
    assert Dataset("e", [other]).dataset_id == Dataset("d", [base]).dataset_id


def test_a_question_without_a_text_is_left_out_and_named() -> None:
    data = Dataset("toy", [Question("a", "Who?"), Question("b", " "), Question("c", "")])
    assert [q.id for q in data.questions] == ["a"]
    assert data.notes == ("2 without a text left out: b, c",)
    assert data.sample(1).notes == data.notes
