"""When learning is stopped, and when it is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from jade_training.improve.watchdog import Thresholds, judge

GOOD: dict[str, Any] = {
    "loss": 0.1,
    "grad_norm": 0.5,
    "reward": 0.4,
    "kl_old": 0.01,
    "score": 0.4,
    "calls": 3.0,
    "legal": 0.99,
    "plan_entropy": 1.5,
    "memory_gib": 2.0,
}


def history(n: int = 6, last: int = 3, **bad: Any) -> list[dict[str, Any]]:
    """`n` good iterations, of which the `last` have other values."""
    return [{**GOOD, **(bad if i >= n - last else {})} for i in range(n)]


def test_all_is_well() -> None:
    assert judge([]) is None
    assert judge(history()) is None
    assert judge([{}] * 10) is None


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"legal": 0.5}, "FORMAT"),
        ({"kl_old": 2.0}, "KL"),
        ({"calls": 60.0}, "CALLS_HIGH"),
        ({"calls": 0.2}, "CALLS_LOW"),
        ({"value_loss": 99.0}, "VALUE_LOSS"),
    ],
)
def test_a_breach_that_lasts_stops_with_its_name_and_number(bad: dict[str, float], code: str) -> None:
    verdict = judge(history(last=3, **bad))
    assert verdict is not None
    assert verdict.code == code
    assert f"{next(iter(bad.values())):.3g}" in verdict.message
    assert judge(history(last=2, **bad)) is None


def test_numbers_that_are_not_finite_stop_at_once() -> None:
    verdict = judge(history(last=1, loss=float("nan")))
    assert verdict is not None
    assert verdict.code == "NOT_FINITE"


def test_memory_stops_at_once() -> None:
    verdict = judge(history(last=1, memory_gib=40.0))
    assert verdict is not None
    assert verdict.code == "MEMORY"


def test_plan_entropy_is_watched_where_asked() -> None:
    falling = history(plan_entropy=0.05)
    assert judge(falling) is None
    verdict = judge(falling, Thresholds(plan_entropy=0.3))
    assert verdict is not None
    assert verdict.code == "PLAN_ENTROPY"


def test_a_score_that_falls_and_stays_down() -> None:
    verdict = judge(history(12, 4, score=0.05))
    assert verdict is not None
    assert verdict.code == "SCORE_DROP"
    assert judge(history(12, 4, score=0.3)) is None


def test_a_score_that_counts_in_tens_may_move_by_more_than_one_that_ends_at_one() -> None:
    words = [-30.0, -31.0, -29.0, -30.0, -31.0, -32.0, -33.0, -34.0]
    told: list[dict[str, Any]] = [{**GOOD, "score": score} for score in words]
    assert judge(told) is None
    fallen = [{**h, "score": h["score"] - (20 if i > 3 else 0)} for i, h in enumerate(told)]
    verdict = judge(fallen)
    assert verdict is not None
    assert verdict.code == "SCORE_DROP"
