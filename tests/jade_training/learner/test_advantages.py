"""Advantages: closed forms, no leak between runs, no dependence on order, fair whitening."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.testing.runs import Act, make_run
from jade_training.learner.advantages import branched, estimate, gae, grouped, row_weights, whiten
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import Row, rows_of

numbers = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=6)


def made(spec, local=None):
    """`spec`: run id -> (question id, outcome, roles)."""
    found = [
        make_run(
            run, [Act(r, (1,), (2,), (-1.0,), local=(local or {}).get(run, {})) for r in roles], out, question_id=q
        )
        for run, (q, out, roles) in spec.items()
    ]
    runs = [run for run, _ in found]
    scored = {s.run_id: s for _, s in found}
    return runs, scored, rows_of(runs, scored)


GROUP = {"a": ("q", 1.0, "PA"), "b": ("q", 0.0, "P"), "c": ("q", 0.5, "PAA"), "d": ("z", 0.2, "P")}


@given(numbers, st.floats(0, 1))
def test_gae_with_lambda_1_is_monte_carlo(pairs, gamma):
    rewards, values = zip(*pairs, strict=True)
    found = gae(rewards, values, gamma, 1.0)
    for i in range(len(rewards)):
        assert found[i] == pytest.approx(sum(gamma ** (j - i) * r for j, r in enumerate(rewards) if j >= i) - values[i])


@given(numbers, st.floats(0, 1))
def test_gae_with_lambda_0_is_the_td_error(pairs, gamma):
    rewards, values = zip(*pairs, strict=True)
    after = [*values[1:], 0.0]
    wanted = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    assert gae(rewards, values, gamma, 0.0) == pytest.approx(wanted)


def test_estimate_uses_the_values_of_its_own_run():
    runs, scored, rows = made(GROUP)
    values = {(r.run_id, r.seq): 0.1 * i for i, r in enumerate(rows)}
    config = PPOConfig(whitening="none", gamma=0.9, lam=0.8)
    found = estimate(rows, runs, scored, config, values=values)
    for run in runs:
        at = [i for i, r in enumerate(rows) if r.run_id == run.id]
        rewards = [0.0] * (len(at) - 1) + [rows[at[0]].outcome]
        wanted = gae(rewards, [values[rows[i].run_id, rows[i].seq] for i in at], 0.9, 0.8)
        assert found.advantages[at] == pytest.approx(wanted)
    assert found.returns == pytest.approx(found.raw + np.array(list(values.values())))


@pytest.mark.parametrize("estimator", ["gae", "rloo", "grpo", "tree"])
def test_the_order_of_runs_and_rows_changes_nothing(estimator):
    runs, scored, rows = made(GROUP, {"a": {"format": -1.0}})
    values = {(r.run_id, r.seq): 0.3 for r in rows}
    config = PPOConfig(estimator=estimator)
    first = estimate(rows, runs, scored, config, values=values).raw
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    again = estimate([rows[i] for i in order], runs[::-1], scored, config, values=values).raw
    assert again.tolist() == first[order].tolist()


def test_no_leak_between_runs_of_different_questions():
    runs, scored, rows = made(GROUP)
    other = made({**GROUP, "d": ("z", 9.0, "P")})
    values = {(r.run_id, r.seq): 0.3 for r in rows}
    for config in (PPOConfig(whitening="none"), PPOConfig(estimator="rloo", whitening="none")):
        a = estimate(rows, runs, scored, config, values=values).advantages
        b = estimate(other[2], other[0], other[1], config, values=values).advantages
        assert a[:-1].tolist() == b[:-1].tolist()
        assert a[-1] != b[-1]


def test_leave_one_out_and_group_normalised():
    _, _, rows = made({k: GROUP[k] for k in "abc"}, {"c": {"format": -0.5}})
    by_run = {"a": 1 - 0.25, "b": 0 - 0.75, "c": 0.5 - 0.5 - 0.5}
    assert grouped(rows, "rloo") == pytest.approx([by_run[r.run_id] for r in rows])
    deviation = np.std([1.0, 0.0, 0.5])
    by_run = {"a": 0.5 / deviation, "b": -0.5 / deviation, "c": -0.5}
    assert grouped(rows, "grpo") == pytest.approx([by_run[r.run_id] for r in rows])


def branch(run, draw, plan, outcome, question="q"):
    """The plan of a run, and what answered under it."""
    shared = {"outcome": outcome, "plan": plan, "draw": draw}
    return [
        Row(run, question, 0, "PL", (1,), (2,), (-1.0,), plans=True, **shared),
        Row(run, question, 1, "AG", (1,), (2,), (-1.0,), **shared),
    ]


def test_plans_are_compared_with_plans_and_answers_with_answers_under_the_same_plan():
    rows = [
        *branch("a", "0", "R,AG", 1.0), *branch("b", "0", "R,AG", 0.0),
        *branch("c", "1", "AG", 0.0), *branch("d", "1", "AG", 0.0),
        *branch("e", "2", "R,AG", 1.0), *branch("f", "0", "AG", 1.0, question="z"),
    ]  # fmt: skip
    found = branched(rows)
    plan, answer = found[0::2], found[1::2]
    worth = {"0": 0.5, "1": 0.0, "2": 1.0}
    assert plan[:5] == pytest.approx([0.5 - 0.5, 0.5 - 0.5, 0.0 - 0.75, 0.0 - 0.75, worth["2"] - 0.25])
    assert answer[:5] == pytest.approx([1 - 0.5, 0 - 1.0, 0.0, 0.0, 1 - 0.5])  # a bad plan is not AG's fault
    assert found[-2:].tolist() == [0.0, 0.0]  # nothing to compare with
    shuffled = list(range(len(rows)))
    random.Random(3).shuffle(shuffled)
    assert branched([rows[i] for i in shuffled]).tolist() == found[shuffled].tolist()


def test_branched_advantages_give_the_exact_policy_gradient_on_average():
    """A planner with two plans and an executor with two actions under each: all outcomes are enumerated."""
    plan_p = np.array([0.3, 0.7])
    act_p = np.array([[0.6, 0.4], [0.2, 0.8]])
    reward = np.array([[1.0, 0.0], [0.3, 0.5]])
    worth = (act_p * reward).sum(1)
    exact_plan = plan_p * (worth - plan_p @ worth)  # d E[R] / d logits of the plans
    exact_act = plan_p[:, None] * act_p * (reward - worth[:, None])
    rng = np.random.default_rng(0)
    plan_sum, act_sum, n = np.zeros(2), np.zeros((2, 2)), 4000
    for _ in range(n):
        rows, chosen = [], []
        for draw in range(2):
            a = int(rng.random() > plan_p[0])
            for run in range(2):
                x = int(rng.random() > act_p[a, 0])
                rows += branch(f"{draw}{run}", str(draw), str(a), reward[a, x])
                chosen.append((a, x))
        found = branched(rows)
        for i, (a, x) in enumerate(chosen):
            plan_sum += found[2 * i] * (np.eye(2)[a] - plan_p)
            act_sum[a] += found[2 * i + 1] * (np.eye(2)[x] - act_p[a])
    assert plan_sum / n / 4 == pytest.approx(exact_plan, abs=0.012)
    # A plan that only one run follows teaches its executor nothing; never the wrong thing.
    assert np.sign(act_sum).tolist() == np.sign(exact_act).tolist()
    assert act_sum / n / 4 == pytest.approx(exact_act, abs=0.02)


def test_a_lonely_run_is_compared_with_the_batch_and_equal_outcomes_give_0():
    _, _, rows = made(GROUP)
    assert grouped(rows, "rloo")[-1] == pytest.approx(0.2 - 0.5)
    assert not grouped(made({"a": ("q", 0.7, "P"), "b": ("q", 0.7, "P")})[2], "grpo").any()
    assert not grouped(made({"a": ("q", 0.7, "P")})[2], "rloo").any()


def test_whitening_by_role_weighs_roles_fairly():
    rng = np.random.default_rng(0)
    raw = np.concatenate([rng.normal(5, 10, 900), rng.normal(-1, 0.01, 30), [3.0]])
    roles = ["AG"] * 900 + ["PL"] * 30 + ["AS"]
    found = whiten(raw, roles, np.ones(len(raw)), "per_role")
    for role in ("AG", "PL"):
        own = found[[r == role for r in roles]]
        assert own.mean() == pytest.approx(0, abs=1e-9)
        assert own.std() == pytest.approx(1)
    assert found[-1] == 0.0
    together = whiten(raw, roles, np.ones(len(raw)), "batch")
    assert together.std() == pytest.approx(1)
    assert together[900:930].std() < 0.01
    assert whiten(raw, roles, np.ones(len(raw)), "none").tolist() == raw.tolist()


def test_whitening_is_finite_for_one_row_and_for_equal_ones_and_uses_the_weights():
    one = np.ones(3)
    assert whiten(np.array([2.0, 2.0, 2.0]), ["a", "a", "b"], one, "per_role").tolist() == [0.0] * 3
    found = whiten(np.array([0.0, 1.0, 2.0]), ["a"] * 3, np.array([1.0, 0.0, 1.0]), "batch")
    assert found == pytest.approx([-1, 0, 1])


def test_weights_of_roles_and_questions():
    _, _, rows = made(GROUP)
    plain = row_weights(rows, {"P": 4.0}, per_run=False)
    assert plain.tolist() == [4.0, 1.0, 4.0, 4.0, 1.0, 1.0, 4.0]
    fair = row_weights(rows, {}, per_run=True)
    assert fair.mean() == pytest.approx(1)
    assert fair[:6].sum() == pytest.approx(fair[6])  # six rows of one question weigh what one row of the other does
    assert row_weights([replace(r, weight=2.0) for r in rows], {}, per_run=False).tolist() == [2.0] * 7
