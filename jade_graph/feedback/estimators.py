"""How relevant a passage is for a query, from clicks of users who look at ranks differently.

Invariant: pure functions of a log and of who looks where. Every estimate is a ratio of sums with its interval; what it
was divided by is told, and an estimate above 1 is told as it came out (`relevance`), not as it is used (`label`).

With E(u,k) the chance that user u looks at rank k, and c the clicks of the n impressions of one query and passage:

    naive            sum(c) / n
    oblivious        sum(c) / sum(P(k)),  P(k) = sum over users of their share of all sessions * E(u,k)
    per-impression   sum(c / E(u,k)) / n
    user-aware       sum(c) / sum(E(u,k))           (arXiv 2508.20798, equation of the user-aware estimator)

The last divides by the examination of the users who really asked the query: unbiased as the third is, and never more
variable, for the mean of 1/E is at least 1 over the mean of E (Jensen).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from jade_graph.errors import UsageError, unknown
from jade_graph.feedback.examination import Examination
from jade_graph.feedback.log import Floats, Log

Estimator = Literal["user-aware", "per-impression", "oblivious", "naive"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
INTERVALS = ("score", "bootstrap")


@dataclass(frozen=True, slots=True)
class Estimates:
    """By pair of the log.

    Attributes:
        relevance: as estimated, may exceed 1. low, high: its interval, within 0 and 1.
        shown, clicks: counts. examined: what clicks were divided by, in impressions that were surely looked at.
        effective: so many surely seen impressions say as much (the estimate's variance is that of so many).
    """

    estimator: Estimator
    relevance: Floats
    low: Floats
    high: Floats
    shown: Floats
    clicks: Floats
    examined: Floats
    effective: Floats

    @property
    def label(self) -> Floats:
        """Relevance as it can be: within 0 and 1."""
        return np.clip(self.relevance, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Sums:
    """An estimate is `total / size`; given relevance g the total has mean g * size and variance g * a - g^2 * b."""

    total: Floats
    size: Floats
    a: Floats
    b: Floats


def relevance(log: Log, examination: Examination, estimator: str = "user-aware") -> Floats:
    """Estimates alone, by pair; NaN where nobody can have looked."""
    sums = _sums(log, examination, estimator)
    return _ratio(sums.total, sums.size)


def estimate(
    log: Log,
    examination: Examination,
    estimator: str = "user-aware",
    *,
    interval: str = "score",
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    refit: Callable[[Floats], Examination] | None = None,
) -> Estimates:
    """Estimates with intervals.

    Args:
        interval: "score", Wilson's interval for this model: relevances that the clicks do not contradict. It holds
            with no click and with few, where the delta method gives no width at all, but takes the examination for
            known. "bootstrap" resamples sessions (percentiles, seeded); no click at all leaves it without width, and
            the score interval is then joined to it.
        level: coverage, between 0 and 1.
        refit: fits the examination to sessions with weights; for "bootstrap", so that what fitting does not know
            is in the interval.

    Raises:
        UsageError: FEEDBACK_ESTIMATOR, FEEDBACK_INTERVAL.
    """
    if interval not in INTERVALS:
        raise unknown("interval", interval, INTERVALS, code="FEEDBACK_INTERVAL")
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(
            f"level={level!r}, resamples={resamples!r}: a level lies between 0 and 1, resamples are 1 or more.",
            code="FEEDBACK_INTERVAL",
        )
    sums = _sums(log, examination, estimator)
    low, high = _score(sums, NormalDist().inv_cdf((1 + level) / 2))
    clicks = log.by_pair(log.click)
    if interval == "bootstrap":
        lower, upper = _bootstrap(log, examination, estimator, level, seed, resamples, refit)
        flat = (clicks == 0) | ~np.isfinite(lower)
        low, high = np.where(flat, np.fmin(lower, low), lower), np.where(flat, np.fmax(upper, high), upper)
    effective = np.divide(sums.size**2, sums.a, out=np.zeros_like(sums.a), where=sums.a > 0)
    return Estimates(
        estimator=_known(estimator),
        relevance=_ratio(sums.total, sums.size),
        low=np.clip(low, 0.0, 1.0),
        high=np.clip(high, 0.0, 1.0),
        shown=log.by_pair(),
        clicks=clicks,
        examined=sums.size,
        effective=effective,
    )


def _known(name: str) -> Estimator:
    for each in ESTIMATORS:
        if each == name:
            return each
    raise unknown("estimator", name, ESTIMATORS, code="FEEDBACK_ESTIMATOR")


def _sums(log: Log, examination: Examination, estimator: str, weights: Floats | None = None) -> _Sums:
    """Sums by pair; `weights` count each impression so many times."""
    w = np.ones(len(log)) if weights is None else weights
    seen = examination.of(log)
    name = _known(estimator)
    if name == "per-impression":
        count = log.by_pair(w)
        return _Sums(log.by_pair(w * log.click / seen), count, log.by_pair(w / seen), count)
    if name == "naive":
        seen = np.ones(len(log))
    elif name == "oblivious":
        seen = (log.shares() @ examination.table(log))[log.rank]
    size = log.by_pair(w * seen)
    return _Sums(log.by_pair(w * log.click), size, size, log.by_pair(w * seen**2))


def _ratio(total: Floats, size: Floats) -> Floats:
    out: Floats = np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)
    return out


def _score(sums: _Sums, z: float) -> tuple[Floats, Floats]:
    """The g for which (total - g size)^2 <= z^2 (g a - g^2 b): the roots of a quadratic (Wilson 1927 for E = 1)."""
    square = sums.size**2 + z**2 * sums.b
    linear = 2 * sums.total * sums.size + z**2 * sums.a
    root = np.sqrt(np.maximum(linear**2 - 4 * square * sums.total**2, 0.0))
    safe = np.where(square > 0, 2 * square, 1.0)
    low, high = (linear - root) / safe, (linear + root) / safe
    nothing = square <= 0
    low = np.where(sums.total <= 0, 0.0, low)  # rounding must not lift it
    return np.where(nothing, 0.0, low), np.where(nothing, 1.0, high)


def _bootstrap(
    log: Log,
    examination: Examination,
    estimator: str,
    level: float,
    seed: int,
    resamples: int,
    refit: Callable[[Floats], Examination] | None,
) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    n = log.sessions
    found = np.empty((resamples, len(log.pairs)))
    for i in range(resamples):
        times = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        used = examination if refit is None else refit(times)
        sums = _sums(log, used, estimator, times[log.session])
        found[i] = _ratio(sums.total, sums.size)
    missing = np.isnan(found).all(axis=0)
    found[:, missing] = 0.0
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)
