"""How far two labellings of the same passages agree, and whether levels mean what they say.

Invariant: pure; a figure that the labels do not define (nothing to compare, no variation) is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from jade_graph.errors import UsageError
from jade_graph.scoring.stats import spearman

_RESAMPLES = 500


def agreement(
    truth: Sequence[float],
    labels: Sequence[float],
    *,
    levels: int = 5,
    groups: Sequence[Hashable] | None = None,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """`labels` against `truth`, both from 0 to 1, passage by passage.

    Args:
        levels: to which both are rounded for kappa, exact agreement and calibration.
        groups: what is resampled as a whole for intervals, e.g. the query of each passage; None: each passage.

    Returns:
        n; weighted_kappa (quadratic), spearman, exact, bias (mean of labels minus truth, in levels), each with
        `NAME_ci95`; mean and mean_truth, in levels; calibration: by level that was given, how many and the mean truth.

    Raises:
        UsageError: JUDGE_PAIRS for lists of unequal length.
    """
    if len(truth) != len(labels) or (groups is not None and len(groups) != len(truth)):
        raise UsageError(f"{len(truth)} labels cannot be compared with {len(labels)}.", code="JUDGE_PAIRS")
    top = levels - 1
    a, b = np.asarray(truth, dtype=np.float64) * top, np.asarray(labels, dtype=np.float64) * top
    figures: dict[str, Callable[[Any, Any], float | None]] = {
        "weighted_kappa": lambda x, y: weighted_kappa(np.rint(x), np.rint(y), levels),
        "spearman": spearman,
        "exact": lambda x, y: float(np.mean(np.rint(x) == np.rint(y))),
        "bias": lambda x, y: float(np.mean(y - x)),
    }
    out: dict[str, Any] = {"n": len(a)}
    for name, figure in figures.items():
        out[name] = figure(a, b) if len(a) else None
        out[f"{name}_ci95"] = _interval(figure, a, b, groups, resamples, seed) if len(a) and resamples else None
    out["mean"], out["mean_truth"] = (float(b.mean()), float(a.mean())) if len(a) else (None, None)
    out["calibration"] = [
        {"level": level, "n": int(mask.sum()), "mean_truth": float(a[mask].mean())}
        for level in range(levels)
        if (mask := np.rint(b) == level).any()
    ]
    return out


def weighted_kappa(a: Any, b: Any, levels: int) -> float | None:
    """Cohen's kappa with quadratic weights; None where both say one and the same level throughout."""
    if not len(a) or len(np.unique(np.concatenate([a, b]))) < 2:
        return None
    scale = np.arange(levels)
    weights = (scale[:, None] - scale[None, :]) ** 2
    seen = np.histogram2d(a, b, bins=np.arange(levels + 1) - 0.5)[0]
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()
    return float(1 - (weights * seen).sum() / (weights * chance).sum())


def _interval(
    figure: Callable[[Any, Any], float | None],
    a: Any,
    b: Any,
    groups: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    """Percentile bootstrap over groups."""
    values = []
    for rows in resampled(range(len(a)) if groups is None else groups, resamples, seed):
        value = figure(a[rows], b[rows])
        if value is not None and math.isfinite(value):
            values.append(value)
    if len(values) < resamples // 2:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def resampled(groups: Sequence[Hashable], resamples: int, seed: int) -> list[Any]:
    """Indices of the rows of `resamples` draws of whole groups, with replacement."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    blocks = [np.asarray(rows) for rows in members.values()]
    rng = np.random.default_rng(seed)
    return [np.concatenate([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]) for _ in range(resamples)]


__all__ = ["agreement", "resampled", "spearman", "weighted_kappa"]
