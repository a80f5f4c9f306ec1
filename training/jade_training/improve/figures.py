"""What the runs of a rollout look like: how they went, what was planned, and whether the planner routes.

Invariant: pure functions of runs; nothing here is trained on.
"""

from __future__ import annotations

import math
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jade_graph.scoring.evaluation import Row, summarize
from jade_graph.scoring.rewards import Scored
from jade_graph.types import Question, Run


def entropy_bits(items: Iterable[str]) -> float:
    """Shannon entropy of the empirical distribution, in bits."""
    counts = Counter(items)
    total = sum(counts.values())
    return sum(n / total * math.log2(total / n) for n in counts.values())


def routing_bits(pairs: Sequence[tuple[str, str]]) -> float:
    """Mutual information of (kind of question, plan), in bits: 0 for a planner that writes one plan for all.

    The plug-in estimate, with the Miller-Madow correction, not below 0: chance alone gives a positive plug-in value.
    """
    if not pairs:
        return 0.0
    joint, kinds, plans = Counter(pairs), {k for k, _ in pairs}, {p for _, p in pairs}
    plug_in = (
        entropy_bits(k for k, _ in pairs)
        + entropy_bits(p for _, p in pairs)
        - entropy_bits("\x1f".join(x) for x in pairs)
    )
    bias = (len(joint) - len(kinds) - len(plans) + 1) / (2 * len(pairs) * math.log(2))
    return max(0.0, plug_in - bias)


def performance(scored: Iterable[Scored], outcome: str) -> float | None:
    """The mean of the performance term alone, without costs and further rewards; None where no run has a score."""
    values = [s.outcome[outcome] for s in scored if s.outcome is not None]
    return math.fsum(values) / len(values) if values else None


def rollout_figures(runs: Sequence[Run], questions: Mapping[str, Question]) -> dict[str, Any]:
    """Means over runs; plans are those that the planner drew itself, unforced."""
    actions = sum(r.counters.calls for r in runs)
    drawn = [
        (questions[r.question_id].type or "all", r.plan)
        for r in runs
        if r.transitions and not r.transitions[0].sampling.get("forced")
    ]
    n = max(1, len(runs))
    return {
        "calls": actions / n,
        "retrievals": sum(r.counters.retrievals for r in runs) / n,
        "legal": 1.0 - sum(r.illegal_actions for r in runs) / max(1, actions),
        "failed": sum(r.status == "failed" for r in runs) / n,
        "plan_entropy": entropy_bits(plan for _, plan in drawn),
        "routing_bits": routing_bits(drawn),
        "plans": dict(Counter(plan for _, plan in drawn).most_common()),
        "memory_gib": memory_gib(),
    }


def evaluation_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Means of a greedy evaluation, F1 by kind of question, plans, and bits between kind and plan."""
    whole = summarize(rows)
    names = ("n", "f1", "em", "f1_style_stripped", "calls", "retrievals", "tokens", "illegal_rate", "failed_rate")
    kinds = sorted({r.type for r in rows})
    by_kind = {kind: [r.f1 for r in rows if r.type == kind and r.f1 is not None] for kind in kinds}
    return {
        **{name: whole[name] for name in names},
        "f1_ci95": whole["ci95"].get("f1"),
        "plans": whole["plans"],
        "f1_by_kind": {kind: sum(values) / len(values) for kind, values in by_kind.items() if values},
        "routing_bits": routing_bits([(r.type, r.plan) for r in rows]),
    }


def memory_gib() -> float:
    """The most memory that this process had resident so far."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
