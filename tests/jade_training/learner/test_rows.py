"""Rows: what trains, what does not, and what is refused."""

import math
from dataclasses import replace

import pytest

from jade_graph.errors import DataError
from jade_graph.testing.runs import Act, make_run
from jade_training.learner.rows import rows_of

LOGS = (-1.5, -0.25)


def act(role="AG", **fields):
    return Act(role, (1, 2, 3), (7, 8), LOGS, fields=fields)


def rows(*made, **options):
    runs = [run for run, _ in made]
    return rows_of(runs, {s.run_id: s for _, s in made}, **options)


def test_a_row_holds_the_very_ids_and_logprobs():
    [row] = rows(make_run("a", [Act("PL", (1, 2), (7, 8), LOGS, temperature=0.7, local={"format": -1.0})], 0.5))
    assert (row.prompt, row.action, row.old_logprobs) == ((1, 2), (7, 8), LOGS)
    assert (row.outcome, row.local, row.temperature, row.behaviour) == (0.5, -1.0, 0.7, 0.0)
    assert (row.run_id, row.seq, row.role, row.version, row.length) == ("a", 0, "PL", "v0", 4)


def test_unscored_runs_tools_frozen_roles_and_failed_actions_give_no_row():
    tool = Act("R", (), (), (), fields={"agent_trainable": False})
    frozen = act("QR", agent_trainable=False, sampling={"temperature": 0.0})
    failed = act("DS", error="LIMIT_DEADLINE")
    good = make_run("a", [act("PL"), tool, frozen, failed, act("AG")], 1.0)
    unscored = make_run("b", [act("PL")], None)
    found = rows(good, unscored)
    assert [(r.run_id, r.seq, r.role) for r in found] == [("a", 0, "PL"), ("a", 4, "AG")]
    assert rows_of([good[0]], {}) == []


def test_only_the_roles_asked_for_and_in_one_order():
    made = [make_run(name, [act("PL"), act("AG")], 1.0) for name in ("b", "a")]
    assert [(r.run_id, r.seq) for r in rows(*made)] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert rows(*made) == rows(*reversed(made))
    assert {r.role for r in rows(*made, roles=frozenset({"PL"}))} == {"PL"}


def test_a_plan_knows_what_carried_it_out_was_penalised_for():
    def at(node, role, penalty=0.0):
        return Act(role, (1,), (7, 8), LOGS, local={"format": penalty} if penalty else {}, fields={"trace_node": node})

    acts = [
        at("0", "PL"), at("0", "QDS", -0.25), at("0.1", "PL", -1.0), at("0.1", "AG"),
        at("0.2", "PL"), at("0.2", "QDS", -0.5), at("0.2.1", "PL"), at("0.2.1", "AG", -2.0),
        at("0.10", "PL"), at("0.10", "AG"), at("0", "AS"),
    ]  # fmt: skip
    caused = {(r.seq, r.role): r.caused for r in rows(make_run("a", acts, 1.0))}
    assert {seq: c for (seq, role), c in caused.items() if role == "PL"} == {0: -3.75, 2: 0, 4: -2.5, 6: -2.0, 8: 0}
    assert {c for (_, role), c in caused.items() if role != "PL"} == {0.0}


def test_stale_versions_are_refused():
    made = make_run("a", [act()], 1.0, version="old@1")
    assert len(rows(made, version="old@1")) == 1
    with pytest.raises(DataError, match="'old@1'") as caught:
        rows(made, version="new@2")
    assert caught.value.error_code == "STALE_VERSION"
    assert caught.value.known == ("new@2",)


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"top_p": 0.9}, {"constrained": True}])
def test_actions_of_another_distribution_are_refused(sampling):
    with pytest.raises(DataError) as caught:
        rows(make_run("a", [act(sampling=sampling)], 1.0))
    assert caught.value.error_code == "ROWS_SAMPLING"


@pytest.mark.parametrize("logs", [(-1.0,), (-1.0, math.nan), ()])
def test_a_finite_logprob_for_every_token(logs):
    with pytest.raises(DataError) as caught:
        rows(make_run("a", [Act("AG", (1,), (7, 8), logs)], 1.0))
    assert caught.value.error_code == "ROWS_LOGPROBS"


def test_a_score_of_another_length_is_refused():
    run, scored = make_run("a", [act()], 1.0)
    with pytest.raises(DataError) as caught:
        rows((run, replace(scored, actions=())))
    assert caught.value.error_code == "ROWS_NOT_ALIGNED"


def test_explored_plans_carry_the_probability_that_drew_them():
    eps, n = 0.4, 8
    mixed = make_run("a", [act(sampling={"explore": eps, "n_plans": n})], 1.0)
    illegal = make_run("b", [act(sampling={"explore": eps, "n_plans": n}, valid=False)], 1.0)
    a, b = rows(mixed, illegal)
    pi = math.exp(sum(LOGS))
    assert math.exp(a.behaviour) == pytest.approx(((1 - eps) * pi + eps / n) / pi)
    assert math.exp(-a.behaviour) <= 1 / (1 - eps)
    assert b.behaviour == pytest.approx(math.log(1 - eps))


def test_the_correction_is_unbiased():
    """E_b[w f] = E_pi[f] with w = exp(-behaviour), summed over a whole language of plans."""
    eps, n = 0.35, 3
    plans = {0.5: 1.0, 0.3: -2.0, 0.15: 0.7}  # pi(plan): f(plan); .05 is left to an illegal action, f = 5
    total = 0.0
    for pi, f in [*plans.items(), (0.05, 5.0)]:
        legal = f != 5.0
        sampling = {"explore": eps, "n_plans": n}
        made = make_run("a", [Act("PL", (1,), (7,), (math.log(pi),), fields={"sampling": sampling, "valid": legal})], 1)
        b = (1 - eps) * pi + (eps / n if legal else 0.0)
        total += b * math.exp(-rows(made)[0].behaviour) * f
    assert total == pytest.approx(sum(pi * f for pi, f in plans.items()) + 0.05 * 5.0)
