"""What the results say: means over seeds, intervals, and paired differences from the joint arm.

Invariant: differences are paired on (seed, question), and an interval is over questions: each question's figure is the
mean over seeds, so questions are what is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jade_graph.scoring.stats import mean_ci, paired_ci
from jade_training.compare.run import Result

FIGURES = ("f1", "f1_style_stripped", "em", "calls", "retrievals", "illegal_rate")


def by_question(results: Sequence[Result], figure: str) -> dict[str, float]:
    """Question id to the figure's mean over seeds."""
    sums: dict[str, list[float]] = {}
    for result in results:
        for row in result.rows:
            value = getattr(row, figure)
            if value is not None:
                sums.setdefault(row.question_id, []).append(value)
    return {question: sum(values) / len(values) for question, values in sums.items()}


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Figures of one arm over its seeds."""
    out: dict[str, Any] = {"seeds": [r.seed for r in results]}
    for figure in FIGURES:
        values = list(by_question(results, figure).values())
        interval = mean_ci(values)
        out[figure] = {"mean": interval.mean, "ci95": [interval.low, interval.high]}
    kinds = sorted({row.type for r in results for row in r.rows})
    scores = [(row.type, row.f1) for r in results for row in r.rows if row.f1 is not None]
    out["f1_by_kind"] = {k: _mean([f1 for kind, f1 in scores if kind == k]) for k in kinds}
    out["f1_by_seed"] = [r.figures["f1"] for r in results]
    out["routing_bits"] = _mean([r.figures["routing_bits"] for r in results])
    out["minutes"] = _mean([r.minutes for r in results])
    out["gradient_tokens"] = _mean([r.gradient_tokens for r in results])
    roles = sorted({role for r in results for role in r.health})
    out["health"] = {role: _mean([r.health[role] for r in results if role in r.health]) for role in roles}
    out["plans"] = _shares([r.figures["plans"] for r in results])
    out["plans_by_kind"] = {k: _shares([r.figures["plans_by_kind"].get(k, {}) for r in results]) for k in kinds}
    return out


def difference(ours: Sequence[Result], theirs: Sequence[Result], figure: str = "f1") -> dict[str, Any]:
    """ours - theirs, paired on the question; `by_seed` for each seed that both have (or that theirs needs none for)."""
    a, b = by_question(ours, figure), by_question(theirs, figure)
    shared = [q for q in a if q in b]
    paired = paired_ci([a[q] for q in shared], [b[q] for q in shared])
    seeds: list[float] = []
    for one in ours:
        other = [r for r in theirs if r.seed == one.seed or not r.trained]
        if other and one.trained:
            mine, yours = by_question([one], figure), by_question(other, figure)
            seeds.append(_mean([mine[q] - yours[q] for q in mine if q in yours]))
    return {
        "difference": paired.difference, "ci95": [paired.low, paired.high], "p": paired.p, "n": len(shared),
        "by_seed": seeds,
    }  # fmt: skip


def _shares(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    plans = {plan for s in shares for plan in s}
    found = {plan: sum(s.get(plan, 0.0) for s in shares) / len(shares) for plan in plans}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
