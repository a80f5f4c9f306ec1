"""Confidence intervals and paired tests, by resampling.

Invariant: the same values and seed give the same figures on every machine; nothing is assumed about the values'
distribution, and a value that is missing or not finite is an error, never left out silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jade_graph.errors import UsageError

_CELLS = 4_000_000  # values drawn at once: 32 MB

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval; `n` values."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Paired:
    """Mean of a - b over `n` pairs, its confidence interval, and the two-sided p of "no difference"."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def mean_ci(values: Sequence[float], *, seed: int = 0, n: int = 10_000, level: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean (Efron, 1979).

    Args:
        values: one per question.
        n: resamples.
        level: coverage, between 0 and 1.

    Raises:
        UsageError: STATS_EMPTY, STATS_VALUE or STATS_OPTION.
    """
    data = _checked(values, "values")
    low, high = _bootstrap(data, seed, n, level)
    return Interval(float(data.mean()), low, high, len(data))


def paired_ci(a: Sequence[float], b: Sequence[float], *, seed: int = 0, n: int = 10_000, level: float = 0.95) -> Paired:
    """The mean difference a - b of paired values: percentile bootstrap over pairs, and a sign-flip test.

    Under "no difference" each pair's difference is as likely to have either sign: p is the share of `n` random sign
    patterns whose mean is at least as far from 0 as the observed one, the observed one counted in, so p >= 1 / (n + 1)
    (Smucker, Allan and Carterette, CIKM 2007).

    Raises:
        UsageError: STATS_EMPTY, STATS_VALUE, STATS_OPTION, or STATS_NOT_PAIRED when the lengths differ.
    """
    first, second = _checked(a, "a"), _checked(b, "b")
    if len(first) != len(second):
        raise UsageError(
            f"{len(first)} values cannot be paired with {len(second)}.",
            code="STATS_NOT_PAIRED",
            hint="compare two evaluations of the same questions, in the same order",
        )
    difference = first - second
    low, high = _bootstrap(difference, seed, n, level)
    return Paired(float(difference.mean()), low, high, _sign_flip(difference, seed, n), len(difference))


def _bootstrap(data: Array, seed: int, n: int, level: float) -> tuple[float, float]:
    if n < 1 or not 0 < level < 1:
        raise UsageError(f"n={n!r}, level={level!r}: n is at least 1, level lies between 0 and 1.", code="STATS_OPTION")
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    step = max(1, _CELLS // len(data))
    for start in range(0, n, step):
        size = min(step, n - start)
        means[start : start + size] = data[rng.integers(0, len(data), size=(size, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flip(difference: Array, seed: int, n: int) -> float:
    rng = np.random.default_rng([seed, 1])
    # Rounding must not decide whether a pattern that equals the observed one counts.
    observed = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    at_least = 0
    step = max(1, _CELLS // len(difference))
    for start in range(0, n, step):
        signs = rng.integers(0, 2, size=(min(step, n - start), len(difference)), dtype=np.int8) * 2 - 1
        at_least += int((np.abs(signs @ difference) >= observed).sum())
    return (at_least + 1) / (n + 1)


def _checked(values: Sequence[float], name: str) -> Array:
    missing = [i for i, v in enumerate(values) if v is None]
    data = np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
    if len(data) == 0:
        raise UsageError(f"there are no {name} to take a mean of.", code="STATS_EMPTY")
    if missing or not np.isfinite(data).all():
        where = missing[0] if missing else int(np.flatnonzero(~np.isfinite(data))[0])
        raise UsageError(
            f"{name}[{where}] is {values[where]!r}: every value must be a finite number.",
            code="STATS_VALUE",
            hint="leave unscored questions out of both sides first",
        )
    return data


def spearman(a: Any, b: Any) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where either side does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Any) -> Any:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
