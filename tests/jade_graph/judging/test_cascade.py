"""The cascade: its oracles, what a quorum decides, and how a judge's text is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.errors import PluginError, UsageError
from jade_graph.judging.cascade import Cascade, FunctionJudge, judge_case, majority_error, name_of
from jade_graph.judging.cases import Behaviour, Candidate, Case
from jade_graph.judging.prompt import UsefulnessJudge, read_choice, view_of
from jade_graph.sync import run_sync
from jade_graph.types import Passage


def case_of(n: int) -> Case:
    found = tuple(Candidate(Passage(f"p{i}", f"text {i}"), Behaviour(rank=i + 1)) for i in range(n))
    return Case("run", 0, 3, "q", "who?", "who?", "Ann", found)


def judged(truth, cascade, judge=None, seed=0):
    seen = []

    def perfect(ballot):
        seen.append(ballot)
        return [c.passage.id for c in ballot.candidates if truth[int(c.passage.id[1:])] >= ballot.level]

    found = run_sync(judge_case(case_of(len(truth)), FunctionJudge(judge or perfect), cascade, seed=seed))
    return found, seen


@settings(max_examples=25)
@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1))))
def test_perfect_judges_return_the_truth_within_the_calls(drawn):
    levels, truth = drawn
    for voters in (1, 5):
        found, _ = judged(truth, Cascade(levels, voters))
        assert [label.level for label in found.labels] == truth
        assert found.calls <= (levels - 1) * voters
        assert found.unreadable == 0
        passed = [levels - max(level, 1) for level in truth]  # a vote at every level that the passage was asked about
        assert [len(label.votes) for label in found.labels] == passed


def test_calls_end_where_nothing_is_undecided():
    found, _ = judged([4, 4], Cascade())
    assert found.calls == 5
    found, _ = judged([0, 4], Cascade())
    assert found.calls == Cascade().calls == 20


def test_a_majority_of_five_errs_in_5_79_percent_at_one_in_five():
    assert majority_error(0.2) == pytest.approx(0.05792, abs=1e-12)
    assert majority_error(0.2, 1) == pytest.approx(0.2)
    assert majority_error(0.2, 3, 3) == pytest.approx(0.008)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000).tolist()

    def wrong_in_a_fifth(ballot):
        drawn = np.random.default_rng(ballot.seed).random(len(ballot.undecided)) < 0.2
        return [
            c.passage.id
            for c, flip in zip(ballot.candidates, drawn, strict=True)
            if (truth[int(c.passage.id[1:])] >= 1) != flip
        ]

    found, _ = judged(truth, Cascade(levels=2), wrong_in_a_fifth)
    errors = np.mean([label.level != true for label, true in zip(found.labels, truth, strict=True)])
    assert abs(errors - 0.0579) < 3 * np.sqrt(0.0579 * 0.9421 / 4000)


def test_documents_one_level_up_are_the_examples():
    _, seen = judged([4, 3, 3, 0, 4], Cascade(voters=1))
    assert [(b.level, b.examples, b.undecided) for b in seen] == [
        (4, (), (0, 1, 2, 3, 4)),
        (3, (0, 4), (1, 2, 3)),
        (2, (1, 2), (3,)),
        (1, (), (3,)),
    ]
    text = UsefulnessJudge().render(view_of(seen[1]), "chat")[1].content
    assert text.index("Judged 4 before:") < text.index("- text 0") < text.index("Documents:") < text.index("[1] text 1")
    assert "[3] text 3 (rank 4, not read)" in text
    assert "usefulness 3 of 4" in text
    assert "Judged" not in UsefulnessJudge().render(view_of(seen[3]), "chat")[1].content


def test_voters_differ_by_their_seeds_and_seeds_by_place():
    _, seen = judged([0, 1], Cascade(levels=3))
    seeds = [b.seed for b in seen]
    assert len(set(seeds)) == len(seeds) == 10
    assert [b.seed for b in judged([0, 1], Cascade(levels=3))[1]] == seeds
    assert not set(seeds) & {b.seed for b in judged([0, 1], Cascade(levels=3), seed=1)[1]}


@pytest.mark.parametrize(("unreadable", "labels"), [(2, [1, 0]), (3, [None, None])])
def test_what_no_quorum_could_be_read_on_has_no_label(unreadable, labels):
    def some(ballot):
        return None if ballot.voter < unreadable else ["p0"]

    found, _ = judged([0, 0], Cascade(levels=2), some)
    assert [label.level for label in found.labels] == labels
    assert found.unreadable == unreadable


def test_a_level_is_never_said_below_one_that_could_not_be_read():
    def breaks_off(ballot):
        return None if ballot.level == 2 else [c.passage.id for c in ballot.candidates if c.passage.id == "p1"]

    found, _ = judged([0, 0, 0], Cascade(levels=5), breaks_off)
    assert [label.level for label in found.labels] == [None, 4, None]
    assert found.calls == 15


@pytest.mark.parametrize("given", [{"levels": 1}, {"voters": 0}, {"quorum": 6}, {"quorum": 0}])
def test_a_cascade_that_cannot_be_is_refused(given):
    with pytest.raises(UsageError) as caught:
        Cascade(**given)
    assert caught.value.error_code == "JUDGE_OPTION"


def test_a_function_that_breaks_or_chooses_strangers_is_named():
    for judge, code in ((lambda b: 1 / 0, "JUDGE_FAILED"), (lambda b: ["p9"], "JUDGE_CHOICE")):
        with pytest.raises(PluginError) as caught:
            judged([0], Cascade(), judge)
        assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Chosen: [1][3]", {0, 2}),
        ("[2] says nothing. Chosen: [12]", {11}),  # not 1, not 2
        ("chosen: [1, 3]", {0, 2}),
        ("They are all off.\nChosen: none", set()),
        ("Chosen: []", set()),
        ("[3]", {2}),
        ("None of them.", set()),
        ("Chosen: [1][99]", {0}),
        ("Chosen: [99]", None),
        ("Chosen: 1 and 3", None),
        ("", None),
        ("12", None),
        ("Chosen: [1]\nNo: Chosen: [2]", {1}),
    ],
)
def test_numbers_are_parsed_and_not_found_in_the_text(text, chosen):
    assert read_choice(text, 12) == (None if chosen is None else frozenset(chosen))


def test_a_provenance_names_its_judge():
    base = {"judge": "a", "levels": 5}
    assert name_of(base) == name_of({"levels": 5, "judge": "a"})
    assert name_of(base) != name_of(base | {"levels": 4})
