"""Evaluations that were never run: rows of two versions, with per-question noise as real ones have it.

Invariant: the seed decides every row. The true difference of the two versions is exactly what was asked for, in
expectation, whatever the noise: tests of statistical decisions can count errors.

How. A question of type t has a difficulty p ~ Beta(k m, k (1 - m)), m the type's mean and k = 1.5: like questions under
greedy decoding, most are nearly always right or nearly always wrong, so that two versions agree on most of them. Each
version then draws on its own: the full score with probability p, else in a quarter of the cases a partial F1 (a word
or two in common with the gold answer), else 0. A better version turns what is left to gain on an answer into the full
score with a probability that makes the mean gain exact. Calls, tokens, illegal actions and latency are drawn for both
from the same distributions, times a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jade_graph.scoring.evaluation import Row

TYPES: Mapping[str, float] = {
    "1hop": 0.85, "noisy": 0.75, "2hop": 0.45, "comparison": 0.5, "context": 0.4, "conjunction": 0.6, "edition": 0.35,
}  # fmt: skip
"""Mean probability of the full score by type: in the middle, where noise is largest."""
CASES: Mapping[str, Mapping[str, Any]] = {
    "equal": {},
    "gain": {"gain": 0.1},
    "gain_three": {"gains": dict.fromkeys(("2hop", "context", "edition"), 0.7 / 3)},
    "loss_one": {
        "gains": dict.fromkeys(TYPES, 0.0) | {"comparison": -0.4, "2hop": 0.4, "context": 0.4, "edition": 0.3}
    },
}
"""True differences that a gate is tried on, as arguments of `simulate_pair`: none; .1 in the mean, harder types gain
more; .1 in the mean, all of it in three of the seven types; .1 in the mean, and comparisons lose .4."""
PARTIAL = (0.25, 1 / 3, 0.4, 0.5, 2 / 3, 0.8)
_PARTIAL_SHARE = 0.25
_CONCENTRATION = 1.5


def mean_score(p: float) -> float:
    """The expected F1 of a question that is fully right with probability p."""
    return p + (1 - p) * _PARTIAL_SHARE * float(np.mean(PARTIAL))


def simulate_pair(
    seed: int,
    n: int = 400,
    *,
    gain: float = 0.0,
    gains: Mapping[str, float] | None = None,
    types: Mapping[str, float] = TYPES,
    cost: float = 1.0,
    illegal: float = 0.01,
) -> tuple[list[Row], list[Row]]:
    """Rows of (challenger, champion) on n questions.

    Args:
        gain: true difference of the mean F1 over all questions, 0 or more; hard types gain more.
        gains: instead, by type: the true difference there; a negative one is a loss. Types left out gain nothing.
        cost: tokens and latency of the challenger as a multiple.
        illegal: share of illegal actions of the challenger; the champion's is 0.01.
    """
    rng = np.random.default_rng([seed, n])
    names = list(types)
    kinds = rng.integers(0, len(names), size=n)
    means = np.array([types[name] for name in names])[kinds]
    p = rng.beta(_CONCENTRATION * means, _CONCENTRATION * (1 - means))
    theirs, ours = _scores(rng, p), _scores(rng, p)
    expected = {name: mean_score(types[name]) for name in names}
    # What is gained everywhere is a share of what was left to gain: exact in the mean.
    share = gain / (1 - float(np.mean(list(expected.values()))))
    wanted = {name: (gains.get(name, 0.0) if gains is not None else share * (1 - expected[name])) for name in names}
    turn = rng.random(n)
    for i, kind in enumerate(kinds):
        name = names[kind]
        delta = wanted[name]
        if delta > 0 and turn[i] < delta / (1 - expected[name]):
            ours[i] = 1.0
        elif delta < 0 and turn[i] < -delta / expected[name]:
            ours[i] = 0.0
    sides = []
    for scores, factor, bad in ((ours, cost, illegal), (theirs, 1.0, 0.01)):
        calls = rng.integers(1, 8, size=n)
        tokens = calls * rng.lognormal(5.0, 0.3, size=n) * factor
        latency = calls * rng.lognormal(3.0, 0.5, size=n) * factor
        wrong = rng.binomial(calls, bad) / calls
        sides.append([
            _row(f"q{i}", names[kinds[i]], float(scores[i]), int(calls[i]), float(tokens[i]), float(latency[i]),
                 float(wrong[i]))
            for i in range(n)
        ])  # fmt: skip
    return sides[0], sides[1]


def simulate_tries(seed: int, tries: int, n: int = 400, types: Mapping[str, float] = TYPES) -> list[list[Row]]:
    """Rows of a champion (the first) and of versions that are as good as it, on the same n questions.

    What a learning run does that is tried after each iteration and does not learn: every version has noise of its own,
    and the champion's luck is in all comparisons.
    """
    rng = np.random.default_rng([seed, n, tries])
    names = list(types)
    kinds = rng.integers(0, len(names), size=n)
    means = np.array([types[name] for name in names])[kinds]
    p = rng.beta(_CONCENTRATION * means, _CONCENTRATION * (1 - means))
    calls = rng.integers(1, 8, size=n)
    return [
        [
            _row(f"q{i}", names[kinds[i]], float(score), int(calls[i]), 100.0 * calls[i], 50.0 * calls[i], 0.01)
            for i, score in enumerate(_scores(rng, p))
        ]
        for _ in range(tries + 1)
    ]


def _scores(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    n = len(p)
    partial = np.where(rng.random(n) < _PARTIAL_SHARE, rng.choice(PARTIAL, size=n), 0.0)
    return np.where(rng.random(n) < p, 1.0, partial)


def _row(id: str, kind: str, f1: float, calls: int, tokens: float, latency: float, illegal: float) -> Row:
    return Row(
        question_id=id, type=kind, run_id=f"run-{id}", plan="R,AG", answer="", status="answered", error=None, f1=f1,
        em=float(f1 == 1.0), f1_style_stripped=f1, support_recall=None, answer_recall=None, calls=float(calls),
        retrievals=1.0, tokens=tokens, latency_ms=latency, illegal_rate=illegal, failed_rate=0.0,
    )  # fmt: skip
