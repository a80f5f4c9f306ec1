"""Turn-level credit (M-ASK): it telescopes, a trace by hand, its myopia, and what it saves in variance."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.scoring.credit import TURN_MODES, assign, turn_shares, turns
from jade_graph.scoring.rewards import RewardSpec, Scored, score_run
from jade_graph.types import Question, Run, Transition


def action(seq: int, round_: int, role: str, answer: str | None = None, **changes: Any) -> Transition:
    t = Transition(
        run_id="r1", question_id="q1", attempt=0, seq=seq, round=round_, step=1, depth=0, node=role, trace_node="0",
        role=role, agent_trainable=True, plan="m-ask", prompt_messages=(), prompt_token_ids=(1,), action_text="x",
        action_token_ids=(2, 0), old_logprobs=(-0.5, -0.1), sampling={}, finish_reason="stop", truncated=False,
        parsed=None if answer is None else {"answer": answer}, valid=True, violation=None, fallback_used=False,
        counters_before={}, counters_after={}, latency_ms=1.0, backbone_version="v", graph_hash="g", corpus_id="c",
    )  # fmt: skip
    return replace(t, **changes)


TOOL: dict[str, Any] = {"agent_trainable": False, "action_token_ids": (), "old_logprobs": (), "finish_reason": "tool"}
ASKED = Question("q1", "Who made X?", ("Ann Lee",))


def run_of(*rows: Transition, answer: str) -> Run:
    return Run("r1", "Who made X?", "q1", "m-ask", 0, status="answered", answer=answer, transitions=rows)


def scored_of(run: Run, answers: dict[int, float], last: float) -> Scored:
    return Scored(run.id, {"f1": last}, tuple({} for _ in run.transitions), answers)


def trace(*answers: str) -> list[Transition]:
    """Plan and Answer, then a turn of four roles and a tool for each further answer, then the search that ends."""
    rows = [action(0, 1, "KP", answers[0]), action(1, 1, "KA", answers[1])]
    for r, answer in enumerate(answers[2:], 2):
        for role in ("KS", "R", "KE", "KU", "KA"):
            more = TOOL if role == "R" else {}
            rows.append(action(len(rows), r, role, answer if role == "KA" else None, **more))
    return [*rows, action(len(rows), len(answers), "KS")]


# --- by hand ----------------------------------------------------------------------------------------------------------
# F1 against "Ann Lee": "Bob" 0, "Ann" 2/3, "Ann Lee" 1, "Ann Lee Roy" 4/5.
GOLDEN = trace("Bob", "Ann", "Ann Lee", "Ann Lee Roy")
THIRD = 1 / 3


@pytest.mark.parametrize(
    ("mode", "rewards"),
    [
        # KP, KA | KS R KE KU KA | KS R KE KU KA | KS, which ends
        ("turn", [0, 2 / 3, THIRD, None, THIRD, -1, 1, -0.2, None, -0.2, -0.2, 0.8, 0]),
        ("return_to_go", [0.8 - 2 / 3, 0.8, 0.8 - 2 / 3, None, 0.8 - 2 / 3, -1, 0.8, -0.2, None, -0.2, -0.2, 0.8, 0]),
        ("final", [0.8, 0.8, 0.8, None, 0.8, -1, 0.8, 0.8, None, 0.8, 0.8, 0.8, 0.8]),
    ],
)
def test_a_trace_by_hand(mode: str, rewards: list[float | None]) -> None:
    rows = list(GOLDEN)
    rows[5] = replace(rows[5], violation="NO_TAG", valid=False)  # the first update: its penalty alone
    run = run_of(*rows, answer="Ann Lee Roy")
    scored = score_run(run, ASKED, RewardSpec())
    assert scored.answers == pytest.approx({0: 0.0, 1: 2 / 3, 6: 1.0, 11: 0.8})
    credited = assign(run, scored, mode=mode)
    assert [t.reward for t in credited] == [None if r is None else pytest.approx(r) for r in rewards]
    assert [t.advantage for t in credited] == [t.reward for t in credited]
    assert credited[5].rewards == {"format": -1.0}


def test_costs_fall_on_the_last_action_and_an_unscored_run_predicts_nothing() -> None:
    run = run_of(*GOLDEN, answer="Ann Lee Roy")
    run.counters = replace(run.counters, rounds=3)
    rows = assign(run, score_run(run, ASKED, RewardSpec(alpha=0.3)), mode="turn")
    assert dict(rows[-1].rewards) == pytest.approx({"f1": 0.0, "turn_cost": -0.3})
    assert score_run(run, replace(ASKED, answers=()), RewardSpec()).answers == {}


def test_who_predicts_is_read_from_the_record() -> None:
    assert action(0, 1, "KA", "Ann").predicted == "Ann"
    assert action(0, 1, "KS").predicted is None
    assert action(0, 1, "KA", "Ann", error="LIMIT_TOKENS").predicted is None
    assert action(0, 1, "AG", parsed="Ann").predicted is None


# --- telescoping ------------------------------------------------------------------------------------------------------
SCORES = st.lists(st.floats(0, 1, allow_nan=False), min_size=2, max_size=6)


@given(SCORES)
def test_the_gains_telescope(scores: list[float]) -> None:
    rows = trace(*(str(s) for s in scores))
    run = run_of(*rows, answer=str(scores[-1]))
    answers = {t.seq: float(text) for t in rows if (text := t.predicted) is not None}
    found = turns(run, scores[-1], answers)
    assert math.fsum(t.gain for t in found) == pytest.approx(scores[-1])
    assert math.fsum(t.gain for t in found[1:]) == pytest.approx(scores[-1] - scores[1])  # M(a_T) - M(a_0)
    shares = {m: turn_shares(run, scores[-1], answers, mode=m) for m in TURN_MODES}
    for t in rows:
        mine = next(turn for turn in found if turn.round == t.round)
        if t.seq not in answers:
            assert shares["turn"][t.seq] == pytest.approx(mine.gain)
            assert shares["return_to_go"][t.seq] == pytest.approx(scores[-1] - mine.before)
        assert shares["final"][t.seq] == scores[-1]
    assert shares["turn"][rows[-1].seq] == shares["return_to_go"][rows[-1].seq] == 0.0  # the search that ends


def test_without_predictions_the_last_action_answers() -> None:
    rows = [action(0, 1, "SR"), action(1, 1, "R", **TOOL), action(2, 2, "SR")]
    run = run_of(*rows, answer="Ann Lee")
    got = {m: [t.reward for t in assign(run, scored_of(run, {}, 1.0), mode=m)] for m in TURN_MODES}
    assert got == {"turn": [0, None, 1], "return_to_go": [1, None, 1], "final": [1, None, 1]}


# --- its limit --------------------------------------------------------------------------------------------------------
def test_turn_credit_is_blind_to_a_hop_that_changes_no_answer() -> None:
    """2-hop: the first hop finds the bridge, the answer stays wrong; the second turns it right."""
    run = run_of(*trace("unknown", "unknown", "unknown", "Ann Lee"), answer="Ann Lee")
    scored = score_run(run, ASKED, RewardSpec())
    first = [t.seq for t in run.transitions if t.round == 2 and t.learns and t.role != "KA"]
    by_mode = {m: assign(run, scored, mode=m) for m in TURN_MODES}
    assert [by_mode["turn"][i].reward for i in first] == [0.0] * 3
    assert [by_mode["return_to_go"][i].reward for i in first] == [1.0] * 3
    assert [by_mode["final"][i].reward for i in first] == [1.0] * 3


# --- variance ---------------------------------------------------------------------------------------------------------
def gradients(turns_: int, mode: str) -> list[float]:
    """The policy gradient of the first turn's search in every possible run of a toy, each equally likely.

    In each turn a fair coin searches well (+1) or badly (-1), and a second fair coin adds +1 or -1 that nobody caused:
    both move the answer's score, turn by turn independently. The score function is (a - p) = +-1/2.
    """
    out = []
    for coins in product((1, -1), repeat=2 * turns_):
        rows, answers, score = [], {}, 0.0
        for t in range(turns_):
            rows += [action(2 * t, t + 1, "KS"), action(2 * t + 1, t + 1, "KA", "x")]
            score += coins[2 * t] + coins[2 * t + 1]
            answers[2 * t + 1] = score
        run = run_of(*rows, answer="x")
        out.append(coins[0] / 2 * turn_shares(run, score, answers, mode=mode)[0])
    return out


def moments(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def test_turn_credit_has_the_same_mean_gradient_and_a_variance_that_does_not_grow() -> None:
    """With T turns: mean 1/2 in every mode; variance 1/4 for turn, (2T - 1)/4 for final and return_to_go of turn 1."""
    ratios = []
    for t in (1, 2, 3, 4):
        by_mode = {mode: moments(gradients(t, mode)) for mode in TURN_MODES}
        assert by_mode["turn"] == pytest.approx((0.5, 0.25))
        assert by_mode["final"] == by_mode["return_to_go"] == pytest.approx((0.5, (2 * t - 1) / 4))
        ratios.append(by_mode["final"][1] / by_mode["turn"][1])
    assert ratios == pytest.approx([1, 3, 5, 7])


RIGHT = 0.9
"""How often a good search raises the score, and a bad one does not."""


def weighted_gradients(turns_: int, mode: str) -> list[tuple[float, float]]:
    """The same for turns whose rewards vary by themselves: (probability, gradient of the first turn's search).

    In each turn a fair coin searches well or badly; the score rises by 1 with probability .9 or .1. What the other
    turns bring on average, (T - 1)/2, is a baseline.
    """
    out = []
    for outcomes in product((True, False), repeat=2 * turns_):
        rows, answers, score, chance = [], {}, 0.0, 1.0
        for t in range(turns_):
            well, rose = outcomes[2 * t : 2 * t + 2]
            rows += [action(2 * t, t + 1, "KS"), action(2 * t + 1, t + 1, "KA", "x")]
            chance *= 0.5 * (RIGHT if well == rose else 1 - RIGHT)
            score += rose
            answers[2 * t + 1] = score
        reward = turn_shares(run_of(*rows, answer="x"), score, answers, mode=mode)[0]
        baseline = 0.0 if mode == "turn" else (turns_ - 1) / 2
        out.append((chance, (0.5 if outcomes[0] else -0.5) * (reward - baseline)))
    return out


def test_the_ratio_of_variances_grows_with_the_turns_as_measured() -> None:
    """Own turn: E = (2 RIGHT - 1)/4, E of squares 1/8. Every other turn adds E s^2 Var r = 1/16: 1 + c (T - 1).

    c = .735: 1.7, 3.9 and 7.6 at T = 2, 5, 10, where 1.7, 4.0 and 7.8 were measured on such a toy.
    """
    mean = (2 * RIGHT - 1) / 4
    own = 1 / 8 - mean**2
    for t in (1, 2, 3, 4, 5):
        found = {}
        for mode in TURN_MODES:
            weighted = weighted_gradients(t, mode)
            assert math.fsum(p * g for p, g in weighted) == pytest.approx(mean)
            found[mode] = math.fsum(p * g * g for p, g in weighted) - mean**2
        assert found["turn"] == pytest.approx(own)
        assert found["final"] / found["turn"] == pytest.approx(1 + (t - 1) / 16 / own)
    assert [round(1 + (t - 1) / 16 / own, 1) for t in (2, 5, 10)] == [1.7, 3.9, 7.6]
