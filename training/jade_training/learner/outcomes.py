"""What a plan comes to for a question, told from all questions that were tried, not from the luck of two runs.

Invariant: recorded prompts and outcomes alone enter; no label, and nothing of the policy. Equal comparisons give equal
expectations, in any order.

The outcome of a run is nearly a coin: right or wrong. A planner that regresses on it knows each question's luck by
heart long before it knows which plan suits which kind of question. A ridge regression (Hoerl and Kennard 1970) of the
outcome on the words of the prompt, one for each plan, cannot: names occur once, the words that ask occur often. What it
expects is biased towards what prompts of the same wording came to, and has far less variance. Questions and what they
were taken apart into have regressions of their own: what pays for a noisy question need not for its clean parts. And
what a plan came to when its executors had learned less says little of it now, so outcomes weigh less as they age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jade_training.learner.planwise import Comparison

FEWEST = 20
"""Comparisons in which a plan must have been tried before anything is expected of it."""
COMMON = 8
"""Prompts that a token or pair of tokens must occur in, to be a feature."""

Plan = tuple[int, ...]


def expected(found: Sequence[Comparison], shrinkage: float, *, halflife: float | None = None) -> list[Comparison]:
    """The comparisons with every well-tried plan, and what each is expected to come to.

    Illegal plans, and plans tried too seldom, keep the outcomes that were recorded, where they were.

    Args:
        found: comparisons.
        shrinkage: lambda of the ridge: a word that tells so many comparisons from as many others has half the effect
            that it seems to have. 0: comparisons as they are.
        halflife: updates after which an outcome weighs half; None: all weigh alike.
    """
    if not shrinkage or not found:
        return list(found)
    told: dict[int, Comparison] = {}
    newest = max(c.update for c in found)
    recency = np.array([0.5 ** ((newest - c.update) / (halflife or np.inf)) for c in found])
    for root in (True, False):
        at = [i for i, c in enumerate(found) if c.root is root]
        told |= zip(at, _expected([found[i] for i in at], recency[at], shrinkage), strict=True)
    return [told[i] for i in range(len(found))]


def _expected(found: Sequence[Comparison], recency: NDArray[np.float64], shrinkage: float) -> list[Comparison]:
    """`expected` of comparisons of one level."""
    features = _features([c.prompt for c in found])
    tried: dict[Plan, list[tuple[int, float]]] = {}
    for i, c in enumerate(found):
        for plan, worth, legal in zip(c.plans, c.worth, c.legal, strict=True):
            if legal:
                tried.setdefault(plan, []).append((i, worth))
    known = {
        plan: _ridge(features, np.array([i for i, _ in own]), np.array([w for _, w in own]), recency, shrinkage)
        for plan, own in sorted(tried.items())
        if len(own) >= FEWEST
    }
    told: list[Comparison] = []
    for i, c in enumerate(found):
        others = [j for j, plan in enumerate(c.plans) if plan not in known or not c.legal[j]]
        told.append(
            replace(
                c,
                plans=(*known, *(c.plans[j] for j in others)),
                worth=(*(float(known[plan][i]) for plan in known), *(c.worth[j] for j in others)),
                legal=(*(True for _ in known), *(c.legal[j] for j in others)),
            )
        )
    return told


def _features(prompts: Sequence[Plan]) -> NDArray[np.float64]:
    """Which common tokens and pairs of neighbours each prompt has: (prompts, features) of 0 and 1."""
    own = [{*zip(p), *pairwise(p)} for p in prompts]
    counts = Counter(gram for grams in own for gram in grams)
    place = {gram: i for i, gram in enumerate(sorted(g for g, n in counts.items() if COMMON <= n < len(prompts)))}
    found = np.zeros((len(prompts), len(place)))
    for row, grams in zip(found, own, strict=True):
        row[[place[gram] for gram in grams if gram in place]] = 1.0
    return found


def _ridge(
    features: NDArray[np.float64],
    at: NDArray[np.int64],
    outcomes: NDArray[np.float64],
    recency: NDArray[np.float64],
    shrinkage: float,
) -> NDArray[np.float64]:
    """What the regression on the rows `at`, weighed by `recency`, predicts for all rows; the mean is not shrunk."""
    weight = recency[at]
    centre, mean = np.average(features[at], 0, weight), np.average(outcomes, weights=weight)
    x = features[at] - centre
    weighed = x.T * weight
    slopes = np.linalg.solve(weighed @ x + shrinkage * np.eye(x.shape[1]), weighed @ (outcomes - mean))
    predicted: NDArray[np.float64] = (features - centre) @ slopes + mean
    return predicted
