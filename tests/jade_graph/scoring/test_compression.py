"""The compression term: closed forms, guards, who pays, and what is logged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import ConfigError, UsageError
from jade_graph.scoring.compression import (
    CompressionSpec,
    budgeted,
    degenerate,
    figures,
    length_of,
    penalty,
    phi,
    reward,
)
from jade_graph.scoring.credit import MODES, assign
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.types import Ask, Preset, Question, Run
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.judged import KEY, Judged, lossless

QUESTION = Question("q1", "Who made X?", answers=("Ann Lee",))
lengths = st.lists(st.integers(0, 300), min_size=1, max_size=20)


@settings(max_examples=50)
@given(lengths, st.floats(1, 1000))
def test_all_fives_cost_nothing_and_all_ones_what_a_uniform_penalty_costs(own: list[int], reference: float) -> None:
    assert penalty([5] * len(own), own, reference) == 0
    assert penalty([1] * len(own), own, reference) == pytest.approx(sum(own) / reference)


@settings(max_examples=50)
@given(st.data())
def test_a_penalty_falls_with_every_weight_and_rises_with_every_length(data: st.DataObject) -> None:
    own = data.draw(lengths)
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(own), max_size=len(own)))
    i = data.draw(st.integers(0, len(own) - 1))
    at = penalty(weights, own, 100)
    assert 0 <= at <= sum(own) / 100 + 1e-12
    heavier = [min(5, w + (j == i)) for j, w in enumerate(weights)]
    longer = [n + 10 * (j == i) for j, n in enumerate(own)]
    assert penalty(heavier, own, 100) <= at <= penalty(weights, longer, 100)


@settings(max_examples=30)
@given(st.lists(st.text("ab é\n漢", min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_changed_character_makes_a_cut_of_another_text(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    assert lossless(pieces, text)
    i = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcé\n漢").filter(lambda c: c != text[i]))
    assert not lossless(pieces, text[:i] + other + text[i + 1 :])
    assert not lossless(pieces, text + " ")
    assert not lossless([*pieces, ""], text)


def test_the_share_that_a_weight_costs() -> None:
    assert [phi(w) for w in (5, 4, 3, 2, 1)] == [0, 0.25, 0.5, 0.75, 1]


@settings(max_examples=50)
@given(st.lists(st.floats(1, 5), min_size=1, max_size=20), st.floats(1, 5))
def test_weights_keep_their_budget_and_their_order(weights: list[float], kappa: float) -> None:
    kept = budgeted(weights, kappa)
    assert sum(kept) <= kappa * len(weights) + 1e-9
    assert all(1 <= a <= b + 1e-12 for a, b in zip(kept, weights, strict=True))
    assert budgeted(weights, 5) == tuple(weights)


def test_whoever_calls_everything_needed_pays_what_is_over_the_budget() -> None:
    assert budgeted([5, 5, 5, 5], 4) == (4, 4, 4, 4)
    assert budgeted([5, 1], 4.5) == (5, 1)
    assert [degenerate(w) for w in ([5, 5, 5, 5], [5, 5, 5, 4], [5, 5, 5])] == [True, False, False]


def run_of(id: str, *texts: Judged, answer: str = "Ann Lee") -> Run:
    told = {"how": "joint", "texts": [text.as_dict() for text in texts]}
    return Run(id, "Who made X?", "q1", "search-r1", 0, "answered", answer, metadata={KEY: told})


def text(weights: tuple[float, ...] | None, own: tuple[int, ...], **more: Any) -> Judged:
    pieces = tuple("x" * (i + 1) for i in range(len(own)))
    return Judged(0, "SR", 100, pieces, own, weights, **{"valid": weights is not None, **more})


def scored(spec: CompressionSpec, *runs: Run) -> dict[str, float]:
    found = {run.id: score_run(run, QUESTION, RewardSpec()) for run in runs}
    return {id: s.outcome["compression"] for id, s in spec.scored(runs, found).items() if s.outcome is not None}


def test_the_reference_is_the_mean_of_the_questions_runs_or_a_number() -> None:
    one = run_of("a", text((1, 5), (30, 30)))
    two = run_of("b", text((1, 5), (10, 10)))
    spec = CompressionSpec(alpha=2, kappa=5)
    assert scored(spec, one, two) == {"a": pytest.approx(-2 * 30 / 40), "b": pytest.approx(-2 * 10 / 40)}
    assert scored(replace(spec, reference=60), one, two) == {"a": pytest.approx(-1), "b": pytest.approx(-1 / 3)}
    uniform = replace(spec, method="uniform", reference=60)
    assert scored(uniform, one, two) == {"a": pytest.approx(-2), "b": pytest.approx(-2 / 3)}


def test_an_invalid_cut_costs_nothing_and_counts_as_length() -> None:
    bad = run_of("a", text(None, (60,), why="NOT_LOSSLESS"), text((1,), (20,)))
    assert scored(CompressionSpec(alpha=1), bad) == {"a": pytest.approx(-20 / 80)}
    assert length_of(bad) == 80


def test_a_run_without_texts_costs_nothing() -> None:
    assert scored(CompressionSpec(), run_of("a")) == {"a": 0}
    assert scored(CompressionSpec(), Run("a", "?", "q1", "jade", 0, "answered", "Ann Lee")) == {"a": 0}


def test_an_unscored_run_stays_unscored() -> None:
    run = run_of("a", text((1,), (10,)))
    found = {"a": score_run(run, replace(QUESTION, answers=()), RewardSpec())}
    assert CompressionSpec().scored([run], found)["a"].outcome is None


def test_the_reward_by_name_measures_in_the_limit_of_the_actions() -> None:
    assert reward(run_of("a", text((1, 5, 3), (10, 20, 30))), QUESTION) == pytest.approx(-(10 + 15) / 100)
    assert reward(run_of("a"), QUESTION) == 0
    assert reward(Run("a", "?", "q1", "jade", 0), QUESTION) is None


@pytest.mark.parametrize(
    ("wrong", "error", "code"),
    [
        ({"alpha": -1.0}, ConfigError, "CONFIG_VALUE"),
        ({"alpha": float("nan")}, ConfigError, "CONFIG_VALUE"),
        ({"kappa": 5.5}, ConfigError, "CONFIG_VALUE"),
        ({"reference": 0.0}, ConfigError, "CONFIG_VALUE"),
        ({"reference": "grup"}, ConfigError, "CONFIG_VALUE"),
        ({"degenerate": float("inf")}, ConfigError, "CONFIG_VALUE"),
        ({"method": "scam"}, UsageError, "UNKNOWN_COMPRESSION"),
        ({"scorer": "loo"}, UsageError, "UNKNOWN_SCORER"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any], error: type[Exception], code: str) -> None:
    with pytest.raises(error, match=code):
        CompressionSpec(**wrong)


# --- who gets what ----------------------------------------------------------------------------------------------------
def judged_run(scores: str = "<score>1</score>" * 4) -> Run:
    def policy(ask: Ask) -> str:
        told = {
            "SG": "<seg>a</seg><seg> b</seg><seg> c</seg><seg> d</seg>",
            "SC": scores,
            "SR": "<think>a b c d</think><answer>Ann</answer>",
        }
        return told[ask.role]

    return Engine(ScriptedBackbone(policy), preset=SEARCH, compress="joint").run(QUESTION)


SEARCH = Preset("search", "one role", loop="search-r1", compress=("SR",), limits={"depth": 0})


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("mode", MODES)
def test_all_three_roles_get_the_teams_reward_whatever_the_mode(mode: str) -> None:
    run = judged_run()
    spec = CompressionSpec(alpha=0.5, reference=4)
    found = spec.scored([run], {run.id: score_run(run, QUESTION, RewardSpec())})[run.id]
    assert found.outcome is not None
    f1, cost = found.outcome.values()
    length = len(ScriptedBackbone(lambda ask: "").encode_text("a b c d"))
    assert (f1, cost) == (pytest.approx(2 / 3), pytest.approx(-0.5 * length / 4))
    rows = {t.role: t for t in assign(run, found, mode=mode, values=[0.1, 0.2, 0.3])}
    assert rows["SR"].reward == pytest.approx(f1 + cost)
    assert rows["SG"].reward == pytest.approx(f1 + cost)
    assert rows["SC"].reward == pytest.approx(f1 + cost - 0.05)  # four equal weights: the scorer alone pays for them
    assert [rows[r].advantage for r in ("SG", "SC")] == pytest.approx([f1 + cost - 0.2, f1 + cost - 0.05 - 0.3])
    assert rows["SR"].advantage == pytest.approx(f1 + cost - 0.1)


@pytest.mark.usefixtures("declared")
def test_a_broken_judgement_costs_its_judge_alone() -> None:
    run = judged_run("<score>5</score>")
    found = CompressionSpec(alpha=0.5).scored([run], {run.id: score_run(run, QUESTION, RewardSpec())})[run.id]
    assert found.outcome == {"f1": pytest.approx(2 / 3), "compression": 0}
    penalties = {t.role: dict(own) for t, own in zip(run.transitions, found.actions, strict=True)}
    assert penalties == {"SR": {}, "SG": {}, "SC": {"format": -1.0}}


@pytest.mark.usefixtures("declared")
def test_calls_and_tokens_of_judges_are_not_billed() -> None:
    run = judged_run()
    outcome = score_run(run, QUESTION, RewardSpec(call_cost=0.1)).outcome
    assert outcome is not None
    assert outcome["call_cost"] == pytest.approx(-0.1)


@pytest.mark.usefixtures("declared")
def test_what_is_logged_tells_of_collusion() -> None:
    told = figures([judged_run("<score>5</score>" * 4), judged_run("<score>5</score>")])
    assert told["histogram"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 4}
    assert (told["valid"], told["pieces"], told["weight"], told["same"], told["degenerate"]) == (0.5, 4, 5, 1, 1)
    assert (told["calls"], told["why"], told["texts"]) == (2, {"COUNT": 1}, 2)
    assert figures([])["tokens"] is None
