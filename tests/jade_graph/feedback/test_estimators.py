"""Estimators against hand-computed values, against each other, and against simulated users whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from jade_graph.errors import UsageError
from jade_graph.feedback.estimators import ESTIMATORS, estimate, relevance
from jade_graph.feedback.examination import Examination, power_law
from jade_graph.feedback.log import log_of
from jade_graph.microworld.users import attraction, make_crowd, make_log

IPS = ("user-aware", "per-impression", "oblivious")


@pytest.fixture
def small(event):
    """Query q, passage b at rank 2: ann (looks at rank 2 with .5) sees it twice, bob (.25) once; one click each.

    Another query, which bob alone asks three times, makes his share of the sessions 4 of 6.
    """
    rows = [("ann", "1", True), ("ann", "2", False), ("bob", "3", True)]
    events = [event(user=u, query="q", rank=2, document="b", session=s, clicked=c) for u, s, c in rows]
    events += [event(user="bob", query="other", rank=1, document="a", session=s) for s in "456"]
    looks = Examination((1.0, 1.0), {"ann": (1.0, 0.5), "bob": (1.0, 0.25)})
    return log_of(events), looks


def test_every_estimator_by_hand(small):
    log, looks = small
    found = {name: relevance(log, looks, name)[0] for name in ESTIMATORS}
    assert found["naive"] == pytest.approx(2 / 3)
    assert found["user-aware"] == pytest.approx(2 / (0.5 + 0.5 + 0.25))
    assert found["per-impression"] == pytest.approx((1 / 0.5 + 1 / 0.25) / 3)
    overall = 2 / 6 * 0.5 + 4 / 6 * 0.25
    assert found["oblivious"] == pytest.approx(2 / (3 * overall))


def test_what_an_estimate_was_made_of_is_told(small):
    log, looks = small
    aware, each = estimate(log, looks), estimate(log, looks, "per-impression")
    assert (aware.shown[0], aware.clicks[0], aware.examined[0]) == (3, 2, 1.25)
    assert aware.effective[0] == pytest.approx(1.25)  # impressions that were surely seen
    assert each.effective[0] == pytest.approx(9 / (2 + 2 + 4))
    assert aware.relevance[0] > 1
    assert aware.label[0] == 1.0
    assert aware.relevance[1] == 0
    assert (aware.low <= aware.label).all()
    assert (aware.label <= aware.high).all()


def test_the_score_interval_is_wilsons_where_everything_is_seen(event):
    events = [event(session=str(s), clicked=s < 3) for s in range(10)]
    found = estimate(log_of(events), Examination())
    assert (found.low[0], found.high[0]) == pytest.approx((0.10779, 0.60323), abs=1e-5)  # 3 of 10
    none = estimate(log_of([event(session=str(s)) for s in range(10)]), Examination())
    assert none.low[0] == 0
    assert none.high[0] == pytest.approx(1.959964**2 / (10 + 1.959964**2))  # no click is no certainty


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5])
def test_with_equal_examination_all_ips_coincide(eta):
    crowd = make_crowd(8, [eta] * 4, seed=3)
    grades = np.random.default_rng(0).integers(0, 5, (8, 10)).astype(float)
    log = make_log(crowd, grades, 400, seed=1)
    looks = power_law(dict(zip(crowd.names, crowd.etas, strict=True)))
    first, *others = (relevance(log, looks, name) for name in IPS)
    assert np.isfinite(first).sum() >= 50
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-12)
    if eta == 0:
        np.testing.assert_allclose(relevance(log, looks, "naive"), first, rtol=1e-12)


def simulated(queries: int, sessions: int, repetitions: int):
    """Estimates of many simulations of one crowd: by estimator, repetitions x pairs; and the truth."""
    crowd = make_crowd(queries, seed=0)
    grades = np.random.default_rng(0).integers(0, 5, (queries, 10)).astype(float)
    looks = power_law(dict(zip(crowd.names, crowd.etas, strict=True)))
    found = {name: [] for name in ESTIMATORS}
    for r in range(repetitions):
        log = make_log(crowd, grades, sessions, seed=r)
        for name in ESTIMATORS:
            found[name].append(relevance(log, looks, name))
    out = {name: np.array(rows) for name, rows in found.items()}
    asked = ~np.isnan(out["naive"]).any(axis=0)
    return {name: rows[:, asked] for name, rows in out.items()}, attraction(grades).ravel()[asked]


def require_the_oracle(found, truth):
    errors = {name: rows - truth for name, rows in found.items()}
    each = {name: rows.mean(axis=1) for name, rows in errors.items()}
    for name in ("user-aware", "per-impression"):
        se = each[name].std(ddof=1) / len(each[name]) ** 0.5
        assert abs(each[name].mean()) < 3 * se, name
    for name in ("naive", "oblivious"):
        se = each[name].std(ddof=1) / len(each[name]) ** 0.5
        assert abs(each[name].mean()) > 10 * se, name  # these are biased, and the test can tell
    variance = {name: rows.var(axis=0, ddof=1).mean() for name, rows in found.items()}
    assert variance["user-aware"] < 0.8 * variance["per-impression"]


def test_user_aware_is_unbiased_and_varies_less_than_per_impression():
    require_the_oracle(*simulated(queries=12, sessions=1500, repetitions=60))


@pytest.mark.slow
def test_user_aware_is_unbiased_at_the_size_of_the_specification():
    found, truth = simulated(queries=60, sessions=20_000, repetitions=300)
    require_the_oracle(found, truth)
    off = {name: np.abs(rows.mean(axis=0) - truth).mean() for name, rows in found.items()}
    assert off["user-aware"] < off["per-impression"] < 0.05 < 0.3 < min(off["oblivious"], off["naive"])


@pytest.mark.parametrize("interval", ["score", "bootstrap"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(interval):
    crowd = make_crowd(20, seed=2)
    grades = np.random.default_rng(1).integers(0, 5, (20, 5)).astype(float)
    looks = power_law(dict(zip(crowd.names, crowd.etas, strict=True)))
    log = make_log(crowd, grades, 3000, seed=5)
    found = estimate(log, looks, interval=interval, resamples=200)
    here = log.by_pair() > 0
    held = (found.low <= attraction(grades).ravel() + 1e-9) & (attraction(grades).ravel() <= found.high + 1e-9)
    assert 0.88 <= held[here].mean() <= 1.0
    again = estimate(log, looks, interval=interval, resamples=200)
    assert (again.low == found.low).all()
    assert (found.high - found.low)[here].mean() < 0.6


def test_a_refit_examination_widens_the_bootstrap(event):
    log = log_of([event(rank=2, session=str(s), clicked=s % 4 == 0) for s in range(200)])
    looks, rng = Examination((1.0, 0.5)), np.random.default_rng(0)
    fixed = estimate(log, looks, interval="bootstrap", resamples=100)
    fitted = estimate(
        log,
        looks,
        interval="bootstrap",
        resamples=100,
        refit=lambda times: Examination((1.0, float(rng.uniform(0.3, 0.7)))),
    )
    assert fitted.high[0] - fitted.low[0] > 1.5 * (fixed.high[0] - fixed.low[0])


def test_unknown_names_are_told(small):
    log, looks = small
    for given, code in (
        ({"estimator": "best"}, "FEEDBACK_ESTIMATOR"),
        ({"interval": "sure"}, "FEEDBACK_INTERVAL"),
        ({"level": 1.0}, "FEEDBACK_INTERVAL"),
    ):
        with pytest.raises(UsageError) as caught:
            estimate(log, looks, **given)
        assert caught.value.error_code == code
    with pytest.raises(UsageError, match="FEEDBACK_SIGNAL"):
        log_of([], "hovered")
