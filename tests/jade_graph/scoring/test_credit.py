"""Credit: closed forms, sums, and hand-computed rows."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph import JadeGraph, RunStore
from jade_graph.errors import UsageError
from jade_graph.scoring.credit import MODES, assign, gae, turn_deltas
from jade_graph.scoring.rewards import RewardSpec, Scored, score_run
from jade_graph.types import Question, Run, Transition

CREDIT = ("rewards", "reward", "value", "advantage", "return_", "done")


def action(seq: int, round_: int = 1, **changes: Any) -> Transition:
    t = Transition(
        run_id="r1", question_id="q1", attempt=0, seq=seq, round=round_, step=seq, depth=0, node="AG", trace_node="0",
        role="AG", agent_trainable=True, plan="AG", prompt_messages=(), prompt_token_ids=(1,), action_text="x",
        action_token_ids=(2, 0), old_logprobs=(-0.5, -0.1), sampling={}, finish_reason="stop", truncated=False,
        parsed=None, valid=True, violation=None, fallback_used=False, counters_before={}, counters_after={},
        latency_ms=1.0, backbone_version="v", graph_hash="g", corpus_id="c",
    )  # fmt: skip
    return replace(t, **changes)


TOOL: dict[str, Any] = {"agent_trainable": False, "action_token_ids": (), "old_logprobs": (), "role": "R"}
FROZEN: dict[str, Any] = {"agent_trainable": False}
FAILED: dict[str, Any] = {"error": "ROLE_ERROR"}
KINDS = [{}, {}, {}, TOOL, FROZEN, FAILED]


def run_of(*actions: Transition, id: str = "r1") -> Run:
    rows = tuple(replace(t, run_id=id) for t in actions)
    return Run(id, "Who?", "q1", "jade", 0, status="answered", answer="x", transitions=rows)


def scored_of(run: Run, outcome: dict[str, float] | None, local: dict[int, float] | None = None) -> Scored:
    """`local`: the penalty of the action of that number."""
    terms = tuple({"format": (local or {})[t.seq]} if t.seq in (local or {}) else {} for t in run.transitions)
    return Scored(run.id, outcome, terms)


NUMBER = st.floats(-2, 2, allow_nan=False).map(lambda x: round(x, 3))
SHARE = st.floats(0, 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Run, Scored, list[float]]:
    """A run of rounds with tools, frozen and failed actions among the learning ones; its score; a value per row."""
    rounds = sorted(draw(st.lists(st.integers(1, 4), min_size=1, max_size=9)))
    run = run_of(*(action(i, r, **draw(st.sampled_from(KINDS))) for i, r in enumerate(rounds)))
    outcome = {"f1": draw(NUMBER), "turn_cost": draw(NUMBER)}
    rows = [t for t in run.transitions if t.learns]
    local = {t.seq: -1.0 for t in rows if draw(st.booleans())}
    return run, scored_of(run, outcome, local), [draw(NUMBER) for _ in rows]


def of(rows: tuple[Transition, ...], name: str) -> list[Any]:
    """A column of the learning rows."""
    return [getattr(t, name) for t in rows if t.learns]


def own(scored: Scored, run: Run) -> list[float]:
    return [sum(terms.values()) for t, terms in zip(run.transitions, scored.actions, strict=True) if t.learns]


# --- what always holds ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
@given(case=cases(), gamma=SHARE, lam=SHARE, inherit=st.booleans())
def test_every_learning_row_and_no_other_has_credit_and_its_terms_add_up(mode, case, gamma, lam, inherit):
    run, scored, values = case
    before = copy.deepcopy(run)
    rows = assign(run, scored, mode=mode, gamma=gamma, lam=lam, values=values, inherit_penalties=inherit)
    assert run == before
    assert len(rows) == len(run.transitions)
    last = max((t.seq for t in rows if t.learns), default=None)
    for t, recorded in zip(rows, run.transitions, strict=True):
        if t.learns:
            assert t.reward == pytest.approx(sum(t.rewards.values()))
            assert all(math.isfinite(x) for x in (t.reward, t.advantage, t.return_))
            assert t.done == (t.seq == last)
        else:
            assert (dict(t.rewards), t.reward, t.value, t.advantage, t.return_) == ({}, None, None, None, None)
        untouched = {name: getattr(recorded, name) for name in CREDIT}
        assert replace(t, **untouched) == recorded
    assert of(rows, "value") == values


@pytest.mark.parametrize("mode", MODES)
@given(case=cases())
def test_an_unscored_run_has_no_credit_at_all(mode, case):
    run, scored, values = case
    credited = replace_rows(run, assign(run, scored, mode=mode))
    for each in (run, credited):  # what an earlier credit left goes too
        rows = assign(each, replace(scored, outcome=None), mode=mode, values=values)
        for t in rows:
            assert (dict(t.rewards), t.reward, t.value, t.advantage, t.return_) == ({}, None, None, None, None)


@pytest.mark.parametrize("mode", MODES)
@given(case=cases(), order=st.randoms(use_true_random=False), gamma=SHARE, lam=SHARE)
def test_the_order_of_the_rows_is_irrelevant(mode, case, order, gamma, lam):
    run, scored, values = case
    rows = assign(run, scored, mode=mode, gamma=gamma, lam=lam, values=values)
    places = list(range(len(rows)))
    order.shuffle(places)
    mixed = replace_rows(run, tuple(run.transitions[i] for i in places))
    terms = replace(scored, actions=tuple(scored.actions[i] for i in places))
    again = assign(mixed, terms, mode=mode, gamma=gamma, lam=lam, values=values)
    assert again == tuple(rows[i] for i in places)


@pytest.mark.parametrize("mode", MODES)
@given(case=cases())
def test_crediting_again_forgets_the_credit_before(mode, case):
    run, scored, _ = case
    fresh = assign(run, scored, mode=mode)
    for other in MODES:
        assert assign(replace_rows(run, assign(run, scored, mode=other)), scored, mode=mode) == fresh


def replace_rows(run: Run, rows: tuple[Transition, ...]) -> Run:
    changed = copy.copy(run)
    changed.transitions = rows
    return changed


# --- closed forms -----------------------------------------------------------------------------------------------------
@given(cases())
def test_without_discount_and_values_broadcast_and_terminal_gae_agree(case):
    run, scored, _ = case
    bare = replace(scored, actions=tuple({} for _ in scored.actions))
    for score in (bare, scored):
        ours = of(assign(run, score, mode="broadcast"), "advantage")
        assert ours == pytest.approx(of(assign(run, score, mode="terminal_gae"), "advantage"))
    outcomes = [a - b for a, b in zip(ours, own(scored, run), strict=True)]
    assert outcomes == pytest.approx([scored.outcome_total] * len(ours))


@given(st.lists(st.tuples(NUMBER, NUMBER), max_size=8), SHARE)
def test_gae_is_monte_carlo_at_lambda_1_and_one_step_at_lambda_0(steps, gamma):
    rewards, values = [r for r, _ in steps], [v for _, v in steps]
    n = len(steps)
    to_go = [sum(gamma**k * rewards[i + k] for k in range(n - i)) for i in range(n)]
    assert gae(rewards, values, gamma, 1.0) == pytest.approx([g - v for g, v in zip(to_go, values, strict=True)])
    after = [*values[1:], 0.0]
    td = [r + gamma * w - v for r, v, w in zip(rewards, values, after, strict=False)]
    assert gae(rewards, values, gamma, 0.0) == pytest.approx(td)


@given(st.lists(st.tuples(NUMBER, NUMBER), max_size=8), SHARE, SHARE)
def test_gae_is_the_sum_of_its_definition(steps, gamma, lam):
    rewards, values = [r for r, _ in steps], [*(v for _, v in steps), 0.0]
    deltas = [r + gamma * values[i + 1] - values[i] for i, r in enumerate(rewards)]
    expected = [sum((gamma * lam) ** k * d for k, d in enumerate(deltas[i:])) for i in range(len(deltas))]
    assert gae(rewards, values[:-1], gamma, lam) == pytest.approx(expected)


@given(cases(), SHARE, SHARE)
def test_in_terminal_gae_a_penalty_reaches_its_own_row_alone_unless_inherited(case, gamma, lam):
    run, scored, values = case
    bare = replace(scored, actions=tuple({} for _ in scored.actions))
    options: dict[str, Any] = {"mode": "terminal_gae", "gamma": gamma, "lam": lam, "values": values}
    rows, clean = assign(run, scored, **options), assign(run, bare, **options)
    parts = [a - b for a, b in zip(of(rows, "advantage"), of(clean, "advantage"), strict=True)]
    assert parts == pytest.approx(own(scored, run))
    assert of(rows, "return_") == of(clean, "return_")  # V predicts the outcome, whatever the row's own penalty
    inherited = assign(run, scored, **options, inherit_penalties=True)
    assert of(inherited, "advantage") == pytest.approx(gae(of(rows, "reward"), values, gamma, lam))
    for t in (*clean, *inherited):
        if t.learns:
            assert t.return_ == pytest.approx(t.advantage + t.value)


@given(cases(), SHARE)
def test_values_that_are_right_leave_no_advantage_but_the_penalties(case, gamma):
    run, scored, values = case
    n = len(values)
    right = [gamma ** (n - 1 - i) * scored.outcome_total for i in range(n)]
    rows = assign(run, scored, mode="terminal_gae", gamma=gamma, lam=0.7, values=right)
    assert of(rows, "advantage") == pytest.approx(own(scored, run), abs=1e-9)
    assert of(rows, "return_") == pytest.approx(right)


@pytest.mark.parametrize("mode", ["broadcast", "split", "turn_delta"])
@given(case=cases())
def test_outside_gae_each_row_is_its_own_episode(mode, case):
    run, scored, values = case
    rows = assign(run, scored, mode=mode, values=values, gamma=0.3, lam=0.3)
    assert of(rows, "return_") == of(rows, "reward")
    assert of(rows, "advantage") == pytest.approx([r - v for r, v in zip(of(rows, "reward"), values, strict=True)])


@given(cases())
def test_split_divides_the_outcome(case):
    run, scored, values = case
    rows = assign(run, scored, mode="split")
    for name, value in scored.outcome.items():
        shares = [t.rewards[name] for t in rows if t.learns]
        assert shares == pytest.approx([value / max(len(values), 1)] * len(values))
        assert sum(shares) == pytest.approx(value if values else 0.0)
    assert sum(of(rows, "reward")) == pytest.approx(scored.total if values else 0.0)


@given(cases(), st.dictionaries(st.integers(1, 4), NUMBER))
def test_turn_deltas_telescope(case, known):
    run, scored, values = case
    scores = {r: m for r, m in known.items() if r in {t.round for t in run.transitions}}
    deltas = turn_deltas(run, scored.outcome["f1"], scores)
    assert sum(deltas.values()) == pytest.approx(scores[max(scores)] if scores else 0.0)
    default = turn_deltas(run, scored.outcome["f1"])
    if values:
        assert sum(default.values()) == pytest.approx(scored.outcome["f1"])
    for given_, expected in ((scores, deltas), (None, default)):
        rows = [t for t in assign(run, scored, mode="turn_delta", turn_scores=given_) if t.learns]
        by_round = defaultdict(set)
        for t in rows:
            by_round[t.round].add(t.rewards["f1"])
        assert by_round == {r: {expected[r]} for r in by_round}
        costs = [t.rewards.get("turn_cost", 0.0) for t in rows]
        assert costs == [0.0] * (len(rows) - 1) + ([scored.outcome["turn_cost"]] if rows else [])


# --- by hand ----------------------------------------------------------------------------------------------------------
THREE = run_of(action(0), action(1, **TOOL), action(2, 2), action(3, 2))
"""Three learning rows: 0 in round 1; 2, illegal, and 3 in round 2."""
SCORE = scored_of(THREE, {"f1": 0.8, "turn_cost": -0.2}, {2: -1.0})
HALF = {"values": [0.1, 0.2, 0.4], "gamma": 0.5, "lam": 0.5}


@pytest.mark.parametrize(
    ("options", "rewards", "advantages", "returns"),
    [
        ({"mode": "broadcast"}, [0.6, -0.4, 0.6], [0.6, -0.4, 0.6], [0.6, -0.4, 0.6]),
        ({"mode": "broadcast"} | HALF, [0.6, -0.4, 0.6], [0.5, -0.6, 0.2], [0.6, -0.4, 0.6]),
        ({"mode": "split"}, [0.2, -0.8, 0.2], [0.2, -0.8, 0.2], [0.2, -0.8, 0.2]),
        ({"mode": "terminal_gae"}, [0, -1, 0.6], [0.6, -0.4, 0.6], [0.6, 0.6, 0.6]),
        ({"mode": "terminal_gae", "inherit_penalties": True}, [0, -1, 0.6], [-0.4, -0.4, 0.6], [-0.4, -0.4, 0.6]),
        # deltas: 0.5*0.2-0.1 = 0; 0.5*0.4-0.2 = 0; 0.6-0.4 = 0.2; each advantage adds a quarter of the next
        ({"mode": "terminal_gae"} | HALF, [0, -1, 0.6], [0.0125, -0.95, 0.2], [0.1125, 0.25, 0.6]),
        # with the penalty in the stream the second delta is -1
        (
            {"mode": "terminal_gae", "inherit_penalties": True} | HALF,
            [0, -1, 0.6],
            [-0.2375, -0.95, 0.2],
            [-0.1375, -0.75, 0.6],
        ),
        ({"mode": "turn_delta"}, [0, -0.2, 0.6], [0, -0.2, 0.6], [0, -0.2, 0.6]),
        (
            {"mode": "turn_delta", "turn_scores": {1: 0.5, 2: 0.8}},
            [0.5, -0.7, 0.1],
            [0.5, -0.7, 0.1],
            [0.5, -0.7, 0.1],
        ),
    ],
)
def test_three_actions_by_hand(options, rewards, advantages, returns):
    rows = assign(THREE, SCORE, **options)
    assert of(rows, "reward") == pytest.approx(rewards)
    assert of(rows, "advantage") == pytest.approx(advantages)
    assert of(rows, "return_") == pytest.approx(returns)
    assert of(rows, "value") == options.get("values", [None] * 3)
    assert of(rows, "done") == [False, False, True]


def test_terms_stay_apart_on_every_row():
    rows = assign(THREE, SCORE, mode="terminal_gae")
    assert [dict(t.rewards) for t in rows] == [{}, {}, {"format": -1.0}, {"f1": 0.8, "turn_cost": -0.2}]
    rows = assign(THREE, SCORE, mode="broadcast")
    assert dict(rows[2].rewards) == {"f1": 0.8, "turn_cost": -0.2, "format": -1.0}


def test_a_frozen_round_keeps_its_change_of_the_answer_to_itself():
    run = run_of(action(0, 1), action(1, 2, **FROZEN), action(2, 3))
    rows = assign(run, scored_of(run, {"f1": 1.0}), mode="turn_delta", turn_scores={1: 0.2, 2: 0.9, 3: 1.0})
    assert [t.reward for t in rows] == [0.2, None, pytest.approx(0.1)]
    rows = assign(replace_rows(run, run.transitions[:2]), scored_of(run_of(*run.transitions[:2]), {"f1": 1.0}),
                  mode="turn_delta")  # fmt: skip
    assert [t.reward for t in rows] == [1.0, None]


def test_a_run_without_a_learning_action_has_nothing_to_credit():
    run = run_of(action(0, **TOOL), action(1, **FROZEN))
    for mode in MODES:
        assert assign(run, scored_of(run, {"f1": 1.0}), mode=mode, values=[]) == run.transitions
        assert assign(run_of(), scored_of(run_of(), {"f1": 1.0}), mode=mode) == ()


# --- one run at a time ------------------------------------------------------------------------------------------------
@given(cases(), cases(), st.sampled_from(MODES))
def test_nothing_leaks_between_runs(one, two, mode):
    (run, scored, values), (other, others, _) = one, two
    other = run_of(*other.transitions, id="r2")
    others = replace(others, run_id="r2")
    alone = assign(run, scored, mode=mode, values=values)
    assign(other, others, mode=mode)
    assert assign(run, scored, mode=mode, values=values) == alone
    for strange in (others, replace(others, actions=scored.actions)):
        with pytest.raises(UsageError, match="'r2'"):
            assign(run, strange, mode=mode)
    mixed = replace_rows(run, (*run.transitions, *other.transitions))
    with pytest.raises(UsageError, match="'r2'"):
        assign(mixed, replace(scored, actions=(*scored.actions, *others.actions)), mode=mode)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mode": "brodcast"}, "UNKNOWN_CREDIT_MODE"),
        ({"gamma": 1.1}, "CREDIT_OPTION"),
        ({"lam": -0.1}, "CREDIT_OPTION"),
        ({"gamma": math.nan}, "CREDIT_OPTION"),
        ({"values": [0.0, 0.0]}, "CREDIT_OPTION"),
        ({"values": [0.0, math.nan, 0.0]}, "CREDIT_OPTION"),
        ({"mode": "turn_delta", "turn_scores": {3: 1.0}}, "CREDIT_OPTION"),
        ({"mode": "turn_delta", "turn_scores": {1: math.inf}}, "CREDIT_OPTION"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, code):
    with pytest.raises(UsageError) as caught:
        assign(THREE, SCORE, **{"mode": "terminal_gae", **options})
    assert caught.value.error_code == code


def test_a_score_of_other_actions_and_two_attempts_at_once_are_refused():
    for run, score in (
        (THREE, Scored("r1", {"f1": 1.0}, ())),
        (run_of(action(0), action(0, attempt=1)), Scored("r1", {"f1": 1.0}, ({}, {}))),
    ):
        with pytest.raises(UsageError) as caught:
            assign(run, score, mode="broadcast")
        assert caught.value.error_code == "CREDIT_RUN"


# --- recorded runs ----------------------------------------------------------------------------------------------------
def test_a_recorded_trace_is_credited_under_every_mode_and_nothing_runs(tmp_path: Path, scripted, passages):
    plans = {"root": "<workflow>QDP</workflow>", "sub": "<workflow>R,DS,AG</workflow>"}
    backbone = scripted(PL=lambda ask: plans[ask.view.level], DS="<id>Document99</id>", AS="<answer>Ann</answer>")
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(backbone, retriever=passages, recorder=store)
        live = graph.run(Question("q", "Who made X?", ("Ann Lee",)))
        store.flush()
        recorded = store.get(live.id)
    asked = len(passages.queries)
    question = Question("q", "Who made X?", ("Ann Lee",))
    spec = RewardSpec.of_preset(graph.preset, alpha=0.3)
    scored = score_run(recorded, question, spec)
    assert scored.outcome == pytest.approx({"f1": 2 / 3, "turn_cost": -0.3})
    assert [t.seq for t in recorded.transitions if scored.actions[t.seq]] == [
        t.seq for t in recorded.transitions if t.role == "DS"
    ]
    for mode in MODES:
        rows = assign(recorded, scored, mode=mode)
        assert [asdict_credit(t) for t in rows] == [
            asdict_credit(t) for t in assign(live, score_run(live, question, spec), mode=mode)
        ]
        assert [t.role for t in rows if t.reward is None] == ["R", "R"]
    assert len(passages.queries) == asked


def asdict_credit(t: Transition) -> dict[str, Any]:
    row = asdict(t)
    return {name: row[name] for name in ("seq", "role", *CREDIT)}
