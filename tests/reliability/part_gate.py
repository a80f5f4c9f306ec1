"""How often the gate is wrong: equal versions looked at once and after each of twelve iterations, and true gains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jade_graph.gate import Policy, judge
from jade_graph.testing.evaluations import simulate_pair, simulate_tries

FULL, BLOCK = 1000, 10
LOOKS, QUESTIONS, MOST = 12, 400, 0.05


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del folder
    spend, ignore = (Policy.of({"gain": {"peeking": name, "resamples": 2000}}) for name in ("spend", "ignore"))
    out = {"pairs": 0, "promoted_equal_once": 0, f"promoted_equal_in_{LOOKS}_looks": 0,
           f"promoted_equal_in_{LOOKS}_looks_unspent": 0, "promoted_gain_05": 0, "promoted_gain_10": 0}  # fmt: skip
    for i in range(seed * FULL + first, seed * FULL + last):
        champion, *tried = simulate_tries(i, LOOKS, QUESTIONS)
        looks = [judge(rows, champion, spend, tries=j).passed for j, rows in enumerate(tried, 1)]
        plain = [looks[0], *(judge(rows, champion, ignore).passed for rows in tried[1:])]
        out["pairs"] += 1
        out["promoted_equal_once"] += looks[0]
        out[f"promoted_equal_in_{LOOKS}_looks"] += any(looks)
        out[f"promoted_equal_in_{LOOKS}_looks_unspent"] += any(plain)
        for name, gain in (("05", 0.05), ("10", 0.1)):
            out[f"promoted_gain_{name}"] += judge(*simulate_pair(i, QUESTIONS, gain=gain), spend).passed
    return out


def broken(figures: dict[str, Any]) -> list[str]:
    """More than 5 % of equal versions, beyond what chance does to so few pairs (three standard errors)."""
    n = figures["pairs"]
    most = MOST + (3 * (MOST * (1 - MOST) / n) ** 0.5 if n < FULL else 0.0)
    names = ("promoted_equal_once", f"promoted_equal_in_{LOOKS}_looks")
    return [f"{name}: {figures[name]} of {n}" for name in names if figures[name] > most * n]
