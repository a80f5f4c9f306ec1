"""How often the gate is wrong: simulated pairs of versions whose true difference is known, and how many it promotes.

Invariant: pair i of every case is drawn with seed i, so that two machines count the same pairs; nothing is timed but
the judging.
"""

from __future__ import annotations

import time

from jade_graph.gate import Policy, judge
from jade_graph.testing.evaluations import CASES, simulate_pair, simulate_tries


def run(
    *, pairs: int = 200, questions: int = 400, quick: bool = False, case: str = "all", looks: int = 1
) -> dict[str, float]:
    """Judge simulated pairs under the built-in policy (`jade_graph.testing.evaluations` says how they are drawn).

    Args:
        pairs: of each case.
        questions: that both versions of a pair answered.
        quick: 40 pairs.
        looks: above 1, equal versions too that are tried so often in turn against one champion.
        case: one of `CASES` ("equal", "gain", "gain_three", "loss_one"), or "all".

    Returns:
        `pairs`, `questions`, and by case `promoted_CASE` (share of the pairs); `judge_ms`, mean of a verdict.

    Raises:
        UsageError: BENCH_OPTION for a case that is none.
    """
    from jade_graph.errors import UsageError

    if case != "all" and case not in CASES:
        raise UsageError(f"there is no case {case!r}.", code="BENCH_OPTION", known=["all", *CASES])
    pairs = min(pairs, 40) if quick else pairs
    chosen = CASES if case == "all" else {case: CASES[case]}
    figures = {"pairs": float(pairs), "questions": float(questions)}
    began = time.perf_counter()
    for name in chosen:
        figures[f"promoted_{name}"] = promoted(name, pairs, questions) / pairs
    figures["judge_ms"] = 1000 * (time.perf_counter() - began) / (pairs * len(chosen))
    if case == "all" and looks > 1:
        for name in ("spend", "ignore"):
            policy = Policy.of({"gain": {"peeking": name}})
            figures[f"promoted_equal_peeking_{name}"] = peeked(pairs, looks, questions, policy) / pairs
        figures["looks"] = float(looks)
    return figures


def peeked(pairs: int, looks: int, questions: int = 400, policy: Policy | None = None) -> int:
    """Of learning runs that learn nothing and are tried after each of `looks` iterations: how many promote one."""
    found = 0
    for seed in range(pairs):
        champion, *tried = simulate_tries(seed, looks, questions)
        found += any(judge(rows, champion, policy, tries=j).passed for j, rows in enumerate(tried, start=1))
    return found


def promoted(case: str, pairs: int, questions: int = 400, policy: Policy | None = None) -> int:
    """How many of the pairs with seeds 0 .. pairs - 1 pass."""
    return sum(judge(*simulate_pair(seed, questions, **CASES[case]), policy).passed for seed in range(pairs))
