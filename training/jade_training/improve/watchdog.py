"""Watches a learning run for collapse, and says why it stops.

Invariant: pure. A verdict depends on the history of metrics alone; thresholds are all in `Thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When learning has gone wrong. A breach must last `patience` iterations, but for numbers that are not finite.

    Attributes:
        plan_entropy: bits; below it the planner writes one plan for every question. 0: not watched, for there are
            data where one plan is right for all.
        calls: least and most calls of the language model per run.
        legal: least share of legal actions.
        kl: most nats per token between the policy and the one that sampled, after an update.
        value_loss: most, "gae" only.
        score_drop: most by which the mean score may lie below the best mean of `window` iterations before; where the
            outcome is no F1 and goes beyond 1, a share of the greatest score.
        memory_gib: most resident memory.
        patience, window: iterations.
    """

    plan_entropy: float = 0.0
    calls: tuple[float, float] = (1.0, 40.0)
    legal: float = 0.8
    kl: float = 0.5
    value_loss: float = 10.0
    score_drop: float = 0.25
    memory_gib: float = 20.0
    patience: int = 3
    window: int = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why learning must stop: a code, and one sentence with the number."""

    code: str
    message: str


def judge(history: Sequence[Mapping[str, Any]], thresholds: Thresholds | None = None) -> Verdict | None:
    """None while all is well.

    Args:
        history: metrics of the iterations so far, oldest first; those that are absent are not watched.
    """
    limits = thresholds or Thresholds()
    if not history:
        return None
    for name in ("loss", "grad_norm", "reward", "kl_old"):
        value = history[-1].get(name)
        if value is not None and not math.isfinite(value):
            return Verdict("NOT_FINITE", f"{name} is {value}.")
    memory = history[-1].get("memory_gib")
    if memory is not None and memory > limits.memory_gib:
        return Verdict("MEMORY", f"{memory:.1f} GiB are in use, above {limits.memory_gib:g}.")
    recent = history[-limits.patience :]
    if len(recent) < limits.patience:
        return None
    low, high = limits.calls
    watched = (
        ("PLAN_ENTROPY", "plan_entropy", limits.plan_entropy, None, "bits of plan entropy: one plan for all questions"),
        ("CALLS_LOW", "calls", low, None, "calls per run"),
        ("CALLS_HIGH", "calls", None, high, "calls per run"),
        ("FORMAT", "legal", limits.legal, None, "of the actions are legal"),
        ("KL", "kl_old", None, limits.kl, "nats between an update's policy and the one that sampled"),
        ("VALUE_LOSS", "value_loss", None, limits.value_loss, "value loss"),
    )
    for code, name, least, most, what in watched:
        values = [h[name] for h in recent if h.get(name) is not None]
        if len(values) < limits.patience:
            continue
        if least is not None and all(v < least for v in values):
            return Verdict(code, f"{values[-1]:.3g} {what}, below {least:g} for {limits.patience} iterations.")
        if most is not None and all(v > most for v in values):
            return Verdict(code, f"{values[-1]:.3g} {what}, above {most:g} for {limits.patience} iterations.")
    return _dropped(history, limits)


def _dropped(history: Sequence[Mapping[str, Any]], limits: Thresholds) -> Verdict | None:
    """The score has fallen far below what it was, and stays there. Costs that rise on schedule are no collapse."""
    scores = [h["score"] for h in history if h.get("score") is not None]
    n = limits.window
    if len(scores) < 2 * n:
        return None
    means = [sum(scores[i : i + n]) / n for i in range(len(scores) - n + 1)]
    best = max(means[:-n])
    if means[-1] < best - limits.score_drop * max(1.0, *map(abs, scores)):
        return Verdict("SCORE_DROP", f"the mean score of {n} iterations is {means[-1]:.2f}; it was {best:.2f}.")
    return None
