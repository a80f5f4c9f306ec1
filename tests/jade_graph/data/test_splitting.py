"""Parts of a data set know nothing of each other, are the same for the same seed, and are read back as they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from jade_graph.data import Dataset, load_dataset
from jade_graph.data.splitting import save_dataset, split, together, without_facts_of
from jade_graph.errors import UsageError
from jade_graph.types import Passage, Question, SubQuestion

N = 40
PASSAGES = [Passage(f"p{i}", f"Text {i}.", f"Title {i}") for i in range(N)]


def questions() -> list[Question]:
    """Question i rests on passage i; every fifth also on that of the next one, by a step's answer, a title or an id."""
    out = []
    for i in range(N):
        support, steps = (f"p{i}",), ()
        if i % 15 == 0:
            support = (f"p{i}", f"p{i + 1}")
        elif i % 15 == 5:
            steps = (SubQuestion("Which?", f"title {i + 1}", ()),)
        elif i % 15 == 10:
            steps = (SubQuestion("Which?", "nothing", (f"p{i + 1}",)),)
        out.append(Question(f"q{i}", f"Question {i}?", (f"a{i}",), supporting=support, decomposition=steps))
    return out


DATA = Dataset("numbers", questions(), PASSAGES)


def ids(questions: Iterable[Question]) -> set[str]:
    return {q.id for q in questions}


def test_every_question_is_in_one_part_and_those_that_share_a_fact_in_the_same() -> None:
    parts = split(DATA, {"test": 0.3, "dev": 0.2})
    found = [ids(part.questions) for part in parts.values()]
    assert set(parts) == {"train", "test", "dev"}
    assert sum(map(len, found)) == N
    assert len(set().union(*found)) == N
    assert 12 <= len(parts["test"]) <= 13
    assert 8 <= len(parts["dev"]) <= 9
    for i in range(0, N - 1, 5):
        assert sum({f"q{i}", f"q{i + 1}"} <= part for part in found) == 1, i


def test_train_is_searched_without_the_gold_passages_of_the_others() -> None:
    parts = split(DATA, {"test": 0.3})
    golds = {id for q in parts["test"].questions for id in q.supporting}
    assert golds.isdisjoint(p.id for p in parts["train"].passages)
    assert len(parts["test"].passages) == N
    assert {id for q in parts["train"].questions for id in q.supporting} <= {p.id for p in parts["train"].passages}


def test_the_seed_decides_and_order_does_not_matter() -> None:
    one, two = split(DATA, {"test": 0.3}, seed=1), split(DATA, {"test": 0.3}, seed=1)
    other = split(DATA, {"test": 0.3}, seed=2)
    turned = split(Dataset("numbers", questions()[::-1], PASSAGES), {"test": 0.3}, seed=1)
    assert ids(one["test"].questions) == ids(two["test"].questions) == ids(turned["test"].questions)
    assert ids(one["test"].questions) != ids(other["test"].questions)


@pytest.mark.parametrize(
    "shares", [{}, {"test": 0.0}, {"test": 1.0}, {"test": -0.1}, {"train": 0.5}, {"a": 0.6, "b": 0.6}, {"a": 0.001}]
)
def test_shares_that_make_no_parts_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        split(DATA, shares)
    assert caught.value.error_code == "BAD_SPLIT"


def test_one_fact_for_all_leaves_nothing_to_split() -> None:
    alike = Dataset("one", [Question(f"q{i}", f"{i}?", ("a",), supporting=("p0",)) for i in range(9)], PASSAGES)
    with pytest.raises(UsageError, match="1 groups"):
        split(alike, {"test": 0.3})


def test_parts_are_read_back_as_they_were_and_named(tmp_path: Path) -> None:
    part = split(DATA, {"test": 0.3})["test"]
    save_dataset(part, tmp_path / "test", manifest={"dataset": "numbers", "part": "test"})
    again = load_dataset(tmp_path / "test")
    assert (again.name, again.dataset_id) == ("numbers-test", part.dataset_id)
    assert again.passages == part.passages
    before = (tmp_path / "test" / "questions.jsonl.gz").read_bytes()
    save_dataset(part, tmp_path / "test")
    assert (tmp_path / "test" / "questions.jsonl.gz").read_bytes() == before


def test_several_data_sets_become_one_and_learn_nothing_of_each_other() -> None:
    other = Dataset("other", [Question("q0", "Other?", ("Title 3",), supporting=("p5",))], [Passage("x", "X.", "X")])
    whole = together("all", {"numbers": DATA, "other": other})
    assert [q.id for q in whole.questions][-1] == "other:q0"
    assert {q.type for q in whole.questions} == {"numbers", "other"}
    assert len(whole.passages) == N + 1
    apart = without_facts_of(DATA, [other])
    assert ids(DATA.questions) - ids(apart.questions) == {"q3", "q5"}
    assert "p5" not in {p.id for p in apart.passages}


def test_a_sample_keeps_order_and_a_larger_one_holds_it() -> None:
    three, nine = DATA.sample(3, 7), DATA.sample(9, 7)
    assert ids(three.questions) < ids(nine.questions)
    assert [q.id for q in nine.questions] == sorted(ids(nine.questions), key=lambda id: int(id[1:]))
    assert DATA.sample(None) is DATA.sample(N) is DATA
    with pytest.raises(UsageError, match="BAD_LIMIT"):
        DATA.sample(0)
