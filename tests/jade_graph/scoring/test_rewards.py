"""Rewards against hand-computed values, and what must never be a silent 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph import plugins
from jade_graph.errors import JadeError, PluginError, UsageError
from jade_graph.scoring.rewards import RewardSpec, Scored, em, f1, f1_yes_no, score_run
from jade_graph.types import Counters, Preset, Question, Run, Transition
from jade_nodes.presets import JADE_CODE, MAO_ARAG, MMOA_RAG, VANILLA_RAG

ASKED = Question("q1", "Who?", ("Ann Lee",))


def action(seq: int, role: str = "AG", **changes: Any) -> Transition:
    t = Transition(
        run_id="r1", question_id="q1", attempt=0, seq=seq, round=1, step=seq, depth=0, node=role, trace_node="0",
        role=role, agent_trainable=True, plan="AG", prompt_messages=(), prompt_token_ids=(1,), action_text="x",
        action_token_ids=(2, 0), old_logprobs=(-0.5, -0.1), sampling={}, finish_reason="stop", truncated=False,
        parsed=None, valid=True, violation=None, fallback_used=False, counters_before={}, counters_after={},
        latency_ms=1.0, backbone_version="v", graph_hash="g", corpus_id="c",
    )  # fmt: skip
    return replace(t, **changes)


def run_of(*actions: Transition, answer: str = "Ann Lee", status: Any = "answered", **changes: Any) -> Run:
    return Run("r1", "Who?", "q1", "jade", 0, status=status, answer=answer, transitions=actions, **changes)


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`reward(name=function)`: as if a package had registered these."""
    real = plugins.load

    def provide(**rewards: Callable[[Run, Question], Any]) -> None:
        def load(group: str, name: str) -> Any:
            return rewards[name] if group == "jade.rewards" and name in rewards else real(group, name)

        monkeypatch.setattr(plugins, "load", load)

    return provide


# --- performance ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reward_", "answer", "golds", "value"),
    [
        (f1, "Ann", ("Ann Lee",), 2 / 3),
        (f1, "Lee", ("Bob", "Ann Lee"), 2 / 3),
        (f1, "", ("Ann Lee",), 0.0),
        (em, "the Ann Lee!", ("Ann Lee",), 1.0),
        (em, "Ann", ("Ann Lee",), 0.0),
        (f1_yes_no, "Yes.", ("yes",), 1.0),
        (f1_yes_no, "yes", ("YES",), 1.0),
        (f1_yes_no, "yes it is", ("yes",), 0.0),
        (f1_yes_no, "no", ("yes",), 0.0),
        (f1_yes_no, "Ann", ("Ann Lee",), 2 / 3),
        (f1, "x", (), None),
        (em, "x", (), None),
        (f1_yes_no, "x", (), None),
    ],
)
def test_performance_of_an_answer(reward_, answer, golds, value):
    got = reward_(run_of(answer=answer), Question("q1", "?", golds))
    assert got == (None if value is None else pytest.approx(value))


@given(
    st.sampled_from(["yes", "no", "Ann Lee", "Ann", "yes Ann", ""]), st.lists(st.sampled_from(["YES", "no.", "Ann"]))
)
def test_the_published_form_gives_the_figures_of_f1_because_yes_and_no_are_matched_exactly_in_both(answer, golds):
    asked = Question("q1", "?", tuple(golds))
    assert f1_yes_no(run_of(answer=answer), asked) == f1(run_of(answer=answer), asked)


@pytest.mark.parametrize(("name", "function"), [("f1", f1), ("em", em), ("f1-yes-no", f1_yes_no)])
def test_the_stock_rewards_are_registered(name, function):
    assert plugins.load("jade.rewards", name) is function


# --- terms ------------------------------------------------------------------------------------------------------------
SPENT = Counters(rounds=2, retrievals=5, calls=6, prompt_tokens=1500, action_tokens=500)


def test_every_term_alone_weighted_and_signed():
    spec = RewardSpec(alpha=0.3, beta=0.5, call_cost=0.01, token_cost=0.1, extra={"em": 2.0})
    run = run_of(action(0, "PL"), action(1, violation="NO_TAG"), answer="Ann", counters=SPENT)
    scored = score_run(run, ASKED, spec)
    expected = {"f1": 2 / 3, "turn_cost": -0.2, "retrieval_cost": -0.5, "call_cost": -0.06, "token_cost": -0.2, "em": 0}
    assert scored.outcome == pytest.approx(expected)
    assert next(iter(scored.outcome)) == "f1"
    assert scored.actions == ({}, {"format": -1.0})
    assert scored.outcome_total == pytest.approx(2 / 3 - 0.96)
    assert scored.total == pytest.approx(2 / 3 - 1.96)


def test_a_term_without_a_weight_is_left_out():
    assert score_run(run_of(counters=SPENT), ASKED, RewardSpec(extra={"em": 0.0})).outcome == {"f1": 1.0}


@pytest.mark.parametrize(
    ("form", "rounds", "cost"),
    [
        *(("paper", 0, 0), ("paper", 1, -0.1), ("paper", 3, -0.3), ("paper", 9, -0.3)),
        *(("code", 0, 0), ("code", 1, 0), ("code", 2, -0.1), ("code", 4, -0.3), ("code", 9, -0.3)),
    ],
)
def test_the_turn_cost_in_both_forms(form, rounds, cost):
    spec = RewardSpec(alpha=0.3, cost_form=form)
    scored = score_run(run_of(counters=Counters(rounds=rounds)), ASKED, spec)
    assert scored.outcome["turn_cost"] == pytest.approx(cost)
    assert math.copysign(1, scored.outcome["turn_cost"] or 1.0) == (1 if cost == 0 else -1)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 2), st.sampled_from(["paper", "code"]))
def test_spending_more_never_pays(fewer, more, weight, form):
    spec = RewardSpec(alpha=weight, beta=weight, call_cost=weight, token_cost=weight, cost_form=form)
    cheap, dear = sorted((fewer, more))
    totals = [score_run(run_of(counters=Counters(n, n, n, n, n, n)), ASKED, spec).total for n in (cheap, dear)]
    assert totals[0] >= totals[1]


@pytest.mark.parametrize(
    ("penalties", "role", "terms"),
    [
        ({"*": -2.0}, "AG", {"format": -2.0}),
        ({"QR": -0.5, "*": -1.0}, "QR", {"format": -0.5}),
        ({"QR": -0.5}, "AG", {}),
        ({"AG": 0.0, "*": -1.0}, "AG", {}),
        ({}, "AG", {}),
    ],
)
def test_the_penalty_of_a_role(penalties, role, terms):
    run = run_of(action(0, role, violation="NO_TAG"), action(1, role))
    assert score_run(run, ASKED, RewardSpec(penalties=penalties)).actions == (terms, {})


@pytest.mark.parametrize("who", [{"agent_trainable": False}, {"action_token_ids": ()}, {"error": "ROLE_ERROR"}])
def test_a_penalty_goes_to_nobody_where_the_offender_does_not_learn(who):
    run = run_of(action(0), action(1, violation="NO_TAG", **who))
    scored = score_run(run, ASKED, RewardSpec())
    assert scored.actions == ({}, {})
    assert scored.total == 1.0


# --- presets ----------------------------------------------------------------------------------------------------------
def test_a_presets_own_weights_and_what_is_put_on_top():
    assert RewardSpec.of_preset(JADE_CODE).penalties == {"*": -2.0}
    assert (RewardSpec.of_preset(MAO_ARAG).alpha, RewardSpec.of_preset(MAO_ARAG).beta) == (0.1, 0.1)
    spec = RewardSpec.of_preset(MMOA_RAG, outcome="em", alpha=0.5, penalties={"AG": -3.0})
    assert (spec.outcome, spec.alpha, spec.beta, spec.penalties) == ("em", 0.5, MMOA_RAG.beta, {"AG": -3.0})
    assert RewardSpec.of_preset(VANILLA_RAG) == RewardSpec()
    with pytest.raises(TypeError, match="gama"):
        RewardSpec.of_preset(Preset("p", "P"), gama=1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -0.1},
        {"beta": math.nan},
        {"call_cost": math.inf},
        {"token_cost": "1"},
        {"penalties": {"*": 1.0}},
        {"penalties": {"AG": -math.inf}},
        {"extra": {"em": math.nan}},
        {"extra": {"f1": 1.0}},
        {"extra": {"turn_cost": 1.0}},
        {"outcome": "format"},
        {"cost_form": "papr"},
    ],
)
def test_a_spec_that_means_nothing_is_refused(wrong):
    with pytest.raises(UsageError) as caught:
        RewardSpec(**wrong)
    assert caught.value.error_code == "REWARD_SPEC"


# --- what cannot be scored --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [RewardSpec(), RewardSpec(alpha=1.0, extra={"em": 1.0})])
def test_without_gold_answers_a_run_is_unscored_and_not_0(spec):
    scored = score_run(run_of(action(0, violation="NO_TAG")), Question("q1", "Who?"), spec)
    assert scored.outcome is None
    assert scored.outcome_total is None
    assert scored.total is None
    assert scored.actions == ({"format": -1.0},)


def test_a_run_is_unscored_where_only_an_extra_reward_cannot_tell(reward):
    reward(judge=lambda run, question: None)
    assert score_run(run_of(), ASKED, RewardSpec(extra={"judge": 0.5})).total is None


def test_a_run_that_has_not_ended_is_unscored():
    assert score_run(run_of(answer="", status="running"), ASKED, RewardSpec()).total is None


def test_a_failed_run_scores_what_its_empty_answer_scores():
    run = run_of(answer="", status="failed", error="LIMIT_TOKENS")
    assert score_run(run, ASKED, RewardSpec()).outcome == {"f1": 0.0}


def test_a_reward_of_a_package_is_asked_about_the_run_and_its_question(reward):
    reward(short=lambda run, question: len(run.answer) / len(question.answers[0]))
    spec = RewardSpec(extra={"short": -0.5})
    assert score_run(run_of(answer="Ann"), ASKED, spec).outcome["short"] == pytest.approx(-0.5 * 3 / 7)


def broken(run: Run, question: Question) -> float:
    raise KeyError("judge")


@pytest.mark.parametrize("spec", [RewardSpec("judge"), RewardSpec(extra={"judge": 1.0})])
@pytest.mark.parametrize("golds", [("Ann Lee",), ()])
def test_a_reward_that_raises_is_an_error_that_names_run_and_term(reward, spec, golds):
    reward(judge=broken)
    with pytest.raises(PluginError, match=r"'judge' raised KeyError for run 'r1'") as caught:
        score_run(run_of(), Question("q1", "Who?", golds), spec)
    assert caught.value.error_code == "REWARD_FAILED"
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.5", [0.5], 1j])
def test_a_reward_that_is_no_finite_number_is_an_error(reward, value):
    reward(judge=lambda run, question: value)
    with pytest.raises(JadeError, match=r"'judge' gave .* for run 'r1'") as caught:
        score_run(run_of(), ASKED, RewardSpec("judge"))
    assert caught.value.error_code == "REWARD_VALUE"


@pytest.mark.parametrize("value", [True, 1, 1.0])
def test_whole_numbers_and_truth_values_are_numbers(reward, value):
    reward(judge=lambda run, question: value)
    total = score_run(run_of(), ASKED, RewardSpec("judge")).total
    assert total == 1.0
    assert type(total) is float


def test_names_that_are_not_there_and_questions_of_other_runs():
    with pytest.raises(UsageError) as unknown:
        score_run(run_of(), ASKED, RewardSpec("f2"))
    assert unknown.value.error_code == "UNKNOWN_REWARD"
    assert "f1" in unknown.value.known
    with pytest.raises(UsageError) as other:
        score_run(run_of(), Question("q2", "Who else?", ("Ann Lee",)), RewardSpec())
    assert other.value.error_code == "REWARD_QUESTION"
    assert score_run(run_of(), Question("", "Who?", ("Ann Lee",)), RewardSpec()).total == 1.0


def test_a_score_made_by_hand():
    assert Scored("r", {"f1": 0.5}, ({}, {"format": -1.0})).total == -0.5
    assert Scored("r", {}, ()).total == 0.0
