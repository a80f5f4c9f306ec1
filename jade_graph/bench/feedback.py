"""Bias and variance of the four estimators of relevance on simulated users, and the rankers that their labels train.

Invariant: repetition r of every part is drawn with seed r from users whose examination and relevances are known; the
four estimators see the same clicks. Nothing is timed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jade_graph.feedback.estimators import ESTIMATORS, relevance
from jade_graph.feedback.examination import Examination, power_law
from jade_graph.microworld.users import GRADES, Crowd, attraction, make_crowd, make_log

Floats = npt.NDArray[np.float64]
RANKS = 10
FEATURES = 12
_TESTED = 300  # fresh queries that each ranker ranks


def run(
    *,
    queries: int = 60,
    sessions: int = 20_000,
    repetitions: int = 300,
    rankers: int = 30,
    seed: int = 0,
    quick: bool = False,
) -> dict[str, float]:
    """Simulate, estimate, train and rank.

    Args:
        queries, sessions: of one repetition; lists of 10 with grades drawn evenly from 0 to 4.
        repetitions: for bias and variance.
        rankers: trained by each estimator's labels, each on clicks of its own.
        seed: of users, grades and features.
        quick: 12 queries, 1500 sessions, 40 repetitions, 3 rankers.

    Returns:
        By estimator (`user_aware` ..): `bias_` (mean over passages), `bias_se_` (its Monte Carlo error), `abs_bias_`,
        `max_abs_bias_`, `variance_` (means over passages), `ndcg10_` of its ranker; `ndcg10_truth` of one that is
        trained on the true relevances, `ndcg10_before` of the ranking that users were shown; `gain_low_`, `gain_high_`:
        of the paired difference `user_aware` minus the others (bootstrap, 95 %).
    """
    if quick:
        queries, sessions, repetitions, rankers = 12, 1500, 40, 3
    crowd = make_crowd(queries, seed=seed)
    looks = power_law(dict(zip(crowd.names, crowd.etas, strict=True)))
    figures = {"queries": float(queries), "sessions": float(sessions), "repetitions": float(repetitions)}
    figures |= estimated(crowd, looks, sessions, repetitions, seed)
    return figures | {"rankers": float(rankers)} | ranked(crowd, looks, sessions, rankers, seed)


def estimated(crowd: Crowd, looks: Examination, sessions: int, repetitions: int, seed: int) -> dict[str, float]:
    """Bias and variance of the estimators; passages that nobody asked for in some repetition are left out."""
    grades = np.random.default_rng([seed, 4]).integers(0, GRADES + 1, (crowd.likes.shape[1], RANKS)).astype(np.float64)
    truth = attraction(grades).ravel()
    found = {name: np.empty((repetitions, len(truth))) for name in ESTIMATORS}
    for r in range(repetitions):
        log = make_log(crowd, grades, sessions, seed=r)
        for name in ESTIMATORS:
            found[name][r] = relevance(log, looks, name)
    asked = np.isfinite(found["naive"]).all(axis=0)
    figures = {"passages": float(asked.sum())}
    for name, rows in found.items():
        errors, word = rows[:, asked] - truth[asked], name.replace("-", "_")
        bias, whole = errors.mean(axis=0), errors.mean(axis=1)
        figures |= {
            f"bias_{word}": float(bias.mean()),
            f"bias_se_{word}": float(whole.std(ddof=1) / len(whole) ** 0.5),
            f"abs_bias_{word}": float(np.abs(bias).mean()),
            f"max_abs_bias_{word}": float(np.abs(bias).max()),
            f"variance_{word}": float(errors.var(axis=0, ddof=1).mean()),
        }
    return figures


def ranked(crowd: Crowd, looks: Examination, sessions: int, rankers: int, seed: int) -> dict[str, float]:
    """nDCG@10 of linear rankers on fresh queries. Users see lists ranked by half of the features."""
    from jade_graph.scoring.stats import paired_ci

    scores: dict[str, list[float]] = {name: [] for name in (*ESTIMATORS, "truth", "before")}
    for r in range(rankers):
        rng = np.random.default_rng([seed, r, 5])
        weights = rng.normal(size=FEATURES)
        shown = weights * (np.arange(FEATURES) < FEATURES // 2)
        x, grades = _lists(rng, crowd.likes.shape[1], weights, shown)
        fresh, wanted = _lists(rng, _TESTED, weights, shown)
        log = make_log(crowd, grades, sessions, seed=1000 + r)
        for name in ESTIMATORS:
            labels = np.nan_to_num(np.clip(relevance(log, looks, name), 0.0, 1.0)).reshape(grades.shape)
            scores[name].append(ndcg(fresh @ trained(x, labels), wanted))
        asked = (log.by_pair() > 0).reshape(grades.shape)
        scores["truth"].append(ndcg(fresh @ trained(x, attraction(grades) * asked), wanted))
        scores["before"].append(ndcg(fresh @ shown, wanted))
    figures = {f"ndcg10_{name.replace('-', '_')}": float(np.mean(rows)) for name, rows in scores.items()}
    for name in ("per-impression", "oblivious", "naive"):
        gain = paired_ci(scores["user-aware"], scores[name])
        figures |= {f"gain_low_{name.replace('-', '_')}": gain.low, f"gain_high_{name.replace('-', '_')}": gain.high}
    return figures


def _lists(rng: np.random.Generator, queries: int, weights: Floats, shown: Floats) -> tuple[Floats, Floats]:
    """Features (queries x 10 x features) in the order that users see, and grades: fifths of a noisy score."""
    x = rng.normal(size=(queries, RANKS, FEATURES))
    order = np.argsort(-(x @ shown), axis=1)
    x = np.take_along_axis(x, order[..., None], axis=1)
    score = x @ weights + rng.normal(scale=0.5, size=x.shape[:2])
    return x, np.digitize(score, np.quantile(score, [0.2, 0.4, 0.6, 0.8])).astype(np.float64)


def trained(x: Floats, labels: Floats, *, steps: int = 300, rate: float = 0.05) -> Floats:
    """Weights of a linear ranker: softmax cross-entropy against the labels of a list, weighed by their sum (Adam)."""
    target = (labels + 1e-7) / (labels + 1e-7).sum(axis=1, keepdims=True)
    weight = labels.sum(axis=1, keepdims=True) / max(float(labels.sum()), 1e-12)
    w, m, v = np.zeros(x.shape[-1]), np.zeros(x.shape[-1]), np.zeros(x.shape[-1])
    for step in range(1, steps + 1):
        scores = x @ w
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        slope = np.einsum("qk,qkf->f", weight * (p / p.sum(axis=1, keepdims=True) - target), x)
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        w = w - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return w


def ndcg(scores: Floats, grades: Floats) -> float:
    """Mean nDCG@10 with gains 2^grade - 1; lists without anything good are left out."""
    gains = 2.0**grades - 1
    discount = 1 / np.log2(np.arange(2, grades.shape[1] + 2))
    got = (np.take_along_axis(gains, np.argsort(-scores, axis=1, kind="stable"), axis=1) * discount).sum(axis=1)
    best = (-np.sort(-gains, axis=1) * discount).sum(axis=1)
    return float((got[best > 0] / best[best > 0]).mean())
