"""Each format, read into the same words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jade_graph.data import load_dataset
from jade_graph.data.dataset import PassagePool
from jade_graph.errors import DataError
from jade_graph.workflow.references import resolve_references

Write = Callable[[str, Any], Path]


def test_musique(write: Write, samples: dict[str, Any]) -> None:
    sample = samples["musique"]
    unanswerable = {**copy.deepcopy(sample), "id": "2hop__9_9", "answerable": False}
    data = load_dataset(write("dev.jsonl", [sample, unanswerable]))
    (question,) = data.questions
    titles = {p.id: p.title for p in data.passages}
    assert (data.format, data.notes) == ("musique", ("1 unanswerable questions left out",))
    assert (question.id, question.type, question.hops) == ("2hop__1_2", "2hop", 2)
    assert question.answers == ("Ostby", "Ostby Town")
    assert [titles[i] for i in question.supporting] == ["Red Boat", "Ann Lee"]
    first, second = question.decomposition
    assert (first.question, first.answer, [titles[i] for i in first.supporting]) == (
        "Red Boat >> director", "Ann Lee", ["Red Boat"],
    )  # fmt: skip
    assert resolve_references(second.question, [first.answer]) == "Where was Ann Lee born?"
    assert sorted(titles.values()) == ["Ann Lee", "Pell", "Red Boat"]
    assert {p.text for p in data.passages} >= {"Pell is a town."}


def test_hotpot(write: Write, samples: dict[str, Any]) -> None:
    data = load_dataset(write("dev.json", json.dumps([samples["hotpot"]])))
    (question,) = data.questions
    titles = {p.id: p.title for p in data.passages}
    assert (data.format, question.id, question.type, question.hops) == ("hotpot", "h1", "comparison", 2)
    assert (question.answers, question.decomposition) == (("yes",), ())
    assert [titles[i] for i in question.supporting] == ["Red Boat", "Blue Lamp"]
    assert {p.text for p in data.passages} >= {"Red Boat is a film. It is long."}


def test_a_test_split_without_answers_stays_unscored(write: Write, samples: dict[str, Any]) -> None:
    bare = {k: v for k, v in samples["hotpot"].items() if k not in {"answer", "supporting_facts", "type"}}
    (question,) = load_dataset(write("test.json", json.dumps([bare]))).questions
    assert (question.answers, question.supporting, question.type) == ((), (), "")


def test_2wiki_evidences_become_sub_questions_with_references(write: Write, samples: dict[str, Any]) -> None:
    data = load_dataset(write("dev.json", json.dumps([samples["2wiki"]])))
    (question,) = data.questions
    first, second = question.decomposition
    assert data.format == "2wiki"
    assert (first.question, first.answer) == ("Red Boat director", "Ann Lee")
    assert (second.question, second.answer) == ("#1 place of birth", "Ostby")
    assert first.supporting == (question.supporting[0],)
    assert second.supporting == ()


def test_context_as_columns_is_the_same_as_pairs(write: Write, samples: dict[str, Any]) -> None:
    pairs = samples["hotpot"]
    columns = {
        **pairs,
        "context": {"title": [t for t, _ in pairs["context"]], "sentences": [s for _, s in pairs["context"]]},
        "supporting_facts": {"title": [t for t, _ in pairs["supporting_facts"]], "sent_id": [0, 0, 1]},
    }
    one, two = load_dataset(write("a.jsonl", [pairs])), load_dataset(write("b.jsonl", [columns]))
    assert one.questions == two.questions
    assert one.passages == two.passages
    assert one.dataset_id == two.dataset_id


def test_flashrag(write: Write, samples: dict[str, Any]) -> None:
    bare = {"id": 7, "question": "Who?", "golden_answers": ["A", "B"]}
    data = load_dataset(write("dev.jsonl", [samples["flashrag"], bare]))
    first, second = data.questions
    titles = {p.id: p.title for p in data.passages}
    assert (data.format, first.type, first.answers) == ("flashrag", "comparison", ("yes",))
    assert [titles[i] for i in first.supporting] == ["Red Boat", "Blue Lamp"]
    assert (second.id, second.answers, second.supporting, second.hops) == ("7", ("A", "B"), (), 1)


def test_equal_passages_have_equal_ids_across_formats(write: Write, samples: dict[str, Any]) -> None:
    hotpot = load_dataset(write("a.json", json.dumps([samples["hotpot"]])))
    flashrag = load_dataset(write("b.jsonl", [samples["flashrag"]]))
    assert {p.id for p in hotpot.passages} == {p.id for p in flashrag.passages}


def test_ids_are_those_of_the_copies_schema() -> None:
    pool = PassagePool()
    # sha1("T\nx y")[:12], worked out with coreutils' sha1sum
    assert pool.add(" T ", "x \n y") == pool.add("T", "x y") == "91b3a5567352"
    assert len(pool.passages()) == 1


def test_beir(beir_folder: Path) -> None:
    data = load_dataset(beir_folder)
    first, second = data.questions
    assert (data.format, len(data.passages)) == ("beir", 3)
    assert (first.question, first.supporting, first.answers) == ("first?", ("d0", "d2"), ("x",))
    assert (second.supporting, second.answers) == (("d1",), ())
    (dev,) = load_dataset(beir_folder, split="dev").questions
    assert (dev.id, dev.supporting) == ("2", ("d2",))
    with pytest.raises(DataError) as caught:
        load_dataset(beir_folder, split="train")
    assert (caught.value.error_code, caught.value.known) == ("DATASET_SPLIT", ("dev", "test"))


def test_own_schema(jade_folder: Path) -> None:
    data = load_dataset(jade_folder)
    (question,) = data.questions
    assert (data.format, data.name, question.hops, question.supporting) == ("jade", "set", 2, ("a", "b"))
    assert [s.question for s in question.decomposition] == ["Who directed Red Boat?", "Where was #1 born?"]
    assert [p.id for p in data.passages] == ["a", "b"]
    assert load_dataset(jade_folder / "questions.jsonl").questions == data.questions


def test_real_copies(shared_data: Path) -> None:
    sizes = {"musique_train100": (100, 1890), "2wiki_train500": (500, 3112), "hotpot_train100": (100, 994)}
    for name, size in sizes.items():
        data = load_dataset(shared_data / name)
        ids = {p.id for p in data.passages}
        assert (len(data), len(data.passages)) == size
        assert all(set(q.supporting) <= ids for q in data.questions)
        pool = PassagePool()
        assert all(pool.add(p.title, p.text) == p.id for p in data.passages)


@pytest.mark.parametrize(
    ("format", "changes", "told"),
    [
        ("musique", {"question": None}, "'question' is missing"),
        ("musique", {"paragraphs": "x"}, "'paragraphs' is not a list"),
        ("musique", {"paragraphs": [{"title": "T"}]}, "'paragraph_text' is missing"),
        ("musique", {"paragraphs": ["x"]}, r"'paragraphs\[0\]' is not an object"),
        ("musique", {"question_decomposition": [{"answer": "x"}]}, "'question' is missing"),
        ("musique", {"id": ""}, "'id' is missing"),
        ("musique", {"answer": {"x": 1}}, "'answer' is not a text or a list"),
        ("hotpot", {"context": None}, "'context' is missing"),
        ("hotpot", {"context": [["only a title"]]}, r"'context\[0\]' is not a pair"),
        ("hotpot", {"context": 3}, "'context' is not a list"),
        ("hotpot", {"supporting_facts": ["x"]}, "'supporting_facts' is not a list of pairs"),
        ("2wiki", {"evidences": [["a", "b"]]}, r"'evidences\[0\]' is not a triple"),
        ("flashrag", {"question": 5}, "'question' is not a text"),
        ("flashrag", {"metadata": []}, "'metadata' is not an object"),
        ("flashrag", {"metadata": {"context": {"title": ["x"]}}}, "'content' is missing"),
        ("jade", {"hops": "two"}, "'hops' is not a number"),
        ("jade", {"decomposition": [{"answer": "x"}]}, "'question' is missing"),
    ],
)
def test_faults_name_file_line_and_field(
    format: str, changes: dict[str, Any], told: str, write: Write, samples: dict[str, Any]
) -> None:
    good = samples[format]
    bad = {**copy.deepcopy(good), **changes}
    with pytest.raises(DataError, match=told) as caught:
        load_dataset(write("x.jsonl", [bad]), format=format)
    assert caught.value.error_code == "DATASET_FIELD"
    assert str(caught.value).startswith("[DATASET_FIELD] x.jsonl:1: ")
    (odd,) = load_dataset(write("y.jsonl", [bad, good]), format=format).odd  # one of them ends nothing
    assert re.search(told, odd["reason"])
    assert odd["reason"].startswith("y.jsonl:1: ")


def test_bad_judgements_are_named(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td0\tx\n")
    with pytest.raises(DataError, match=r"test\.tsv:2"):
        load_dataset(beir_folder)
