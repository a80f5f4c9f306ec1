"""The same questions under two versions or methods: pairs, what turned, what it cost.

Invariant: pure. Only questions that both sides answered are compared, each with one pair; where a side asked a question
more than once its scores are meant. A question that a side cannot score is in no figure of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph.stats import paired_ci

COSTS = (("calls", "calls"), ("tokens", "tokens"), ("wall_ms", "milliseconds"))


@dataclass(frozen=True, slots=True)
class Answered:
    """A question as one side answered it. `run_id` is of its newest run."""

    question_id: str
    question: str
    type: str
    run_id: str
    answer: str
    plan: str
    f1: float | None
    calls: float
    tokens: float
    wall_ms: float


@dataclass(frozen=True, slots=True)
class Pair:
    one: Answered
    other: Answered

    @property
    def turned(self) -> str:
        """ "right" (B is better), "wrong" (A was), "same", or "unscored"."""
        a, b = self.one.f1, self.other.f1
        if a is None or b is None:
            return "unscored"
        return "same" if a == b else "right" if b > a else "wrong"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures are (name, A, B, difference B - A, low, high); an interval that leaves out 0 is a difference."""

    pairs: tuple[Pair, ...]
    figures: tuple[tuple[str, float, float, float, float, float], ...]
    plans: tuple[tuple[str, float, float], ...]
    left_out: int

    def turned(self, how: str) -> list[Pair]:
        """Pairs that turned so, those that moved most first."""
        found = [p for p in self.pairs if p.turned == how]
        return sorted(found, key=lambda p: -abs((p.other.f1 or 0.0) - (p.one.f1 or 0.0)))


def answered(rows: Iterable[Mapping[str, Any]]) -> dict[str, Answered]:
    """By question: rows of the studio's index (newest first), or of an evaluation file as mappings."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        key = str(row.get("question_id") or row.get("question") or "")
        if key:
            groups.setdefault(key, []).append(row)
    return {key: _meant(key, group) for key, group in groups.items()}


def _meant(key: str, rows: Sequence[Mapping[str, Any]]) -> Answered:
    newest = rows[0]
    scored = [float(r["f1"]) for r in rows if r.get("f1") is not None]

    def mean(name: str) -> float:
        return sum(float(r.get(name) or 0.0) for r in rows) / len(rows)

    return Answered(
        key,
        str(newest.get("question") or key),
        str(newest.get("type") or ""),
        str(newest.get("id") or newest.get("run_id") or ""),
        str(newest.get("answer") or newest.get("error") or ""),
        str(newest.get("plan") or ""),
        sum(scored) / len(scored) if scored else None,
        mean("calls"),
        mean("tokens"),
        mean("wall_ms") or mean("latency_ms"),
    )


def compare(one: Mapping[str, Answered], other: Mapping[str, Answered]) -> Comparison:
    """B against A, over the questions of both."""
    shared = [key for key in one if key in other]
    pairs = tuple(Pair(one[key], other[key]) for key in shared)
    figures = []
    scored = [p for p in pairs if p.turned != "unscored"]
    if scored:
        figures.append(_figure("F1", [p.one.f1 or 0.0 for p in scored], [p.other.f1 or 0.0 for p in scored]))
    if pairs:
        for name, label in COSTS:
            figures.append(
                _figure(label, [getattr(p.one, name) for p in pairs], [getattr(p.other, name) for p in pairs])
            )
    return Comparison(pairs, tuple(figures), _plans(pairs), len({*one, *other}) - len(shared))


def _figure(name: str, a: Sequence[float], b: Sequence[float]) -> tuple[str, float, float, float, float, float]:
    found = paired_ci(b, a, seed=0)
    return name, sum(a) / len(a), sum(b) / len(b), found.difference, found.low, found.high


def _plans(pairs: Sequence[Pair]) -> tuple[tuple[str, float, float], ...]:
    counts: dict[str, list[int]] = {}
    for pair in pairs:
        counts.setdefault(pair.one.plan or "none", [0, 0])[0] += 1
        counts.setdefault(pair.other.plan or "none", [0, 0])[1] += 1
    n = max(len(pairs), 1)
    listed = [(plan, a / n, b / n) for plan, (a, b) in counts.items()]
    return tuple(sorted(listed, key=lambda row: -max(row[1], row[2])))
