"""Scores against hand-worked values and properties."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.scoring.metrics import (
    answer_recall,
    exact_match,
    is_yes_no,
    normalize_answer,
    strip_style,
    support_recall,
    token_f1,
)
from jade_graph.types import Passage

TEXT = st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles!", "beatles"),
        ("  a   Quick,  brown-fox ", "quick brownfox"),
        ("U.S.A.", "usa"),
        ("1990–1995", "19901995"),
        ("“Quoted”", "quoted"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁlm", "film"),
        ("The The", "the the"),
        ("A", "a"),
        ("!!!", "!!!"),
        ("", ""),
        ("Anthem", "anthem"),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@given(TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once


@given(st.text(alphabet=string.ascii_letters + string.punctuation + " ", max_size=40))
def test_normalisation_agrees_with_squad_where_something_is_left(text: str) -> None:
    lowered = "".join(c for c in text.lower() if c not in set(string.punctuation))
    words = [w for w in lowered.split() if w not in {"a", "an", "the"}]
    if words:
        assert normalize_answer(text) == " ".join(words)


@pytest.mark.parametrize(
    ("prediction", "golds", "f1"),
    [
        ("Ann Lee", ["Ann Lee"], 1.0),
        ("Ann", ["Ann Lee"], 2 / 3),
        ("the director Ann Lee", ["Ann Lee"], 0.8),
        ("Ann Ann", ["Ann Lee"], 0.5),
        ("Bob", ["Ann Lee"], 0.0),
        ("", ["Ann Lee"], 0.0),
        ("Lee", ["Bob", "Ann Lee"], 2 / 3),
        ("yes", ["yes"], 1.0),
        ("yes indeed", ["yes"], 0.0),
        ("Yes", ["Yes, they are both films"], 0.0),
    ],
)
def test_token_f1(prediction: str, golds: list[str], f1: float) -> None:
    assert token_f1(prediction, golds) == pytest.approx(f1)


@pytest.mark.parametrize("gold", [["yes"], ["YES"], ["Yes."], "yes", ["no", "Yes"]])
@pytest.mark.parametrize("prediction", ["yes", "Yes", "YES.", " yes "])
def test_yes_is_right_however_the_gold_is_written(prediction: str, gold: list[str] | str) -> None:
    assert exact_match(prediction, gold) == 1.0
    assert token_f1(prediction, gold) == 1.0
    assert exact_match("no" if "no" not in gold else "maybe", gold) == 0.0


@pytest.mark.parametrize("golds", [[], [""], ["  "], ()])
def test_without_a_gold_answer_there_is_no_score(golds: list[str]) -> None:
    assert exact_match("x", golds) is None
    assert token_f1("x", golds) is None
    assert answer_recall([Passage("1", "x")], golds) is None


def test_a_bare_string_is_one_answer_not_letters() -> None:
    assert exact_match("P", "Paris") == 0.0
    assert token_f1("Paris", "Paris") == 1.0


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4))
def test_scores_are_bounded_and_never_fall_with_another_gold(prediction: str, golds: list[str]) -> None:
    f1, em = token_f1(prediction, golds), exact_match(prediction, golds)
    assert (f1 is None) == (em is None)
    if f1 is not None and em is not None:
        assert 0.0 <= em <= f1 <= 1.0
        more = token_f1(prediction, [*golds, "another"])
        assert more is not None
        assert more >= f1


@given(st.lists(st.sampled_from(["red", "green", "blue", "lamp", "boat"]), min_size=1, max_size=6))
def test_f1_of_an_answer_with_itself_is_one_and_order_does_not_count(words: list[str]) -> None:
    assert token_f1(" ".join(words), [" ".join(reversed(words))]) == 1.0


@pytest.mark.parametrize(
    ("text", "core"),
    [
        ("The final answer is: Paris, because it is the capital.", "Paris"),
        ("Based on the passages, the answer is Hank Snow (a singer).", "Hank Snow"),
        ("It was 1990.", "1990"),
        ("Answer: 35", "35"),
        ("Yes, they are both films.", "Yes"),
        ("No. It is not.", "No"),
        ("St. Louis", "St. Louis"),
        ("Paris", "Paris"),
        ("the answer is", "the answer is"),
        ("", ""),
    ],
)
def test_strip_style(text: str, core: str) -> None:
    assert strip_style(text) == core


def test_style_stripped_f1_tells_a_wordy_right_answer_from_a_wrong_one() -> None:
    wordy = "The answer is Ann Lee, because she directed it."
    plain = token_f1(wordy, ["Ann Lee"])
    assert plain is not None
    assert plain < 0.6
    assert token_f1(wordy, ["Ann Lee"], style_stripped=True) == 1.0
    assert token_f1("The answer is Bob.", ["Ann Lee"], style_stripped=True) == 0.0


@given(TEXT, TEXT)
def test_stripping_style_never_lowers_the_score(prediction: str, gold: str) -> None:
    plain, stripped = token_f1(prediction, [gold]), token_f1(prediction, [gold], style_stripped=True)
    if plain is not None and stripped is not None:
        assert stripped >= plain


@pytest.mark.parametrize(
    ("text", "gold", "recall"),
    [
        ("born in Kansas City", "Kansas", 1.0),
        ("born in Arkansas", "Kansas", 0.0),
        ("a Kansas-born singer", "Kansas", 1.0),
        ("the U.S. army", "US", 1.0),
        ("the US army", "U.S.", 1.0),
        ("in 1,234 places", "1234", 1.0),
        ("played by The Beatles", "Beatles", 1.0),
        ("Émile Zola wrote", "émile zola", 1.0),
        ("nothing", "something", 0.0),
    ],
)
def test_answer_recall_finds_whole_words(text: str, gold: str, recall: float) -> None:
    assert answer_recall([Passage("0", "other"), Passage("1", text)], [gold]) == recall


def test_answer_recall_reads_titles_and_takes_any_gold() -> None:
    assert answer_recall([Passage("1", "a singer", "Hank Snow")], ["Nobody", "Hank Snow"]) == 1.0
    assert answer_recall([], ["Hank Snow"]) == 0.0


def test_answer_recall_leaves_yes_no_questions_out() -> None:
    assert answer_recall([Passage("1", "yes")], ["Yes."]) is None
    assert is_yes_no(["no"])
    assert not is_yes_no(["no", "Nobody"])
    assert not is_yes_no([])


def test_support_recall() -> None:
    passages = [Passage(i, "x") for i in "abc"]
    assert support_recall(passages, ["a", "c"], 2) == 0.5
    assert support_recall(passages, ["a", "c"], 3) == 1.0
    assert support_recall(passages, ["a", "a", "z"], 9) == 0.5
    assert support_recall(passages, [], 3) is None
