"""Intervals and tests against closed forms, known coverage and symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.errors import UsageError
from jade_graph.scoring import stats
from jade_graph.scoring.stats import mean_ci, paired_ci

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@settings(max_examples=40)
@given(VALUES, st.integers(0, 5))
def test_interval_holds_the_mean_and_is_reproducible(values: list[float], seed: int) -> None:
    one = mean_ci(values, seed=seed, n=400)
    assert one.mean == pytest.approx(float(np.mean(values)))
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= one.low <= one.mean + slack
    assert one.mean - slack <= one.high <= max(values) + slack
    assert one == mean_ci(values, seed=seed, n=400)


def test_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=400)
    interval = mean_ci(list(values), seed=1)
    wanted = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(wanted, rel=0.05)


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = [0.0, 1.0] * 20
    narrow, wide = mean_ci(values, level=0.5), mean_ci(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_chunked_resampling_draws_the_same_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(v) for v in range(50)]
    whole = mean_ci(values, seed=3, n=1000)
    monkeypatch.setattr(stats, "_CELLS", 1000)
    assert mean_ci(values, seed=3, n=1000) == whole


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=25))
def test_swapping_the_sides_flips_the_difference_and_keeps_p(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = paired_ci(a, b, n=300), paired_ci(b, a, n=300)
    assert there.difference == pytest.approx(-back.difference)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.p == back.p
    assert 0 < there.p <= 1


def test_no_difference_at_all() -> None:
    same = paired_ci([1.0, 0.0, 0.5], [1.0, 0.0, 0.5])
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_p_of_one_pair_and_of_a_constant_difference() -> None:
    assert paired_ci([1.0], [0.0]).p == 1.0
    # Of the 2^10 sign patterns two are as far from 0 as ten equal differences: p = 2 / 1024.
    assert paired_ci([1.0] * 10, [0.0] * 10, n=100_000).p == pytest.approx(2 / 1024, rel=0.25)


def test_a_clear_difference_is_found_and_pairing_counts() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, size=100)
    a, b = list(hard + 0.5 + rng.normal(0, 0.5, 100)), list(hard)
    found = paired_ci(a, b)
    assert found.low > 0
    assert found.p < 0.001
    shuffled = paired_ci(a, list(rng.permutation(b)))
    assert shuffled.high - shuffled.low > 5 * (found.high - found.low)


def test_p_is_uniform_under_no_difference() -> None:
    rng = np.random.default_rng(1)
    ps = [paired_ci(list(rng.normal(size=20)), list(rng.normal(size=20)), n=200).p for _ in range(300)]
    assert 0.02 <= np.mean([p <= 0.05 for p in ps]) <= 0.09
    assert 0.42 <= np.mean([p <= 0.5 for p in ps]) <= 0.58


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: mean_ci([]), "STATS_EMPTY"),
        (lambda: paired_ci([], []), "STATS_EMPTY"),
        (lambda: paired_ci([1.0], [1.0, 2.0]), "STATS_NOT_PAIRED"),
        (lambda: mean_ci([1.0, float("nan")]), "STATS_VALUE"),
        (lambda: mean_ci([1.0, None]), "STATS_VALUE"),
        (lambda: paired_ci([1.0], [float("inf")]), "STATS_VALUE"),
        (lambda: mean_ci([1.0], level=1.5), "STATS_OPTION"),
        (lambda: mean_ci([1.0], n=0), "STATS_OPTION"),
    ],
)
def test_bad_values_are_named(call: object, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.error_code == code


def test_rank_correlation_shares_ranks_of_ties_and_is_none_without_variation():
    assert stats.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert stats.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert stats.spearman([1, 1, 2, 3], [1, 1, 2, 3]) == pytest.approx(1.0)
    assert stats.spearman([1, 1], [1, 2]) is None
