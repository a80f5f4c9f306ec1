"""Entropy and mutual information against closed forms."""

from __future__ import annotations

import random

import pytest

from jade_training.improve.figures import entropy_bits, memory_gib, routing_bits


def test_entropy_of_equal_shares() -> None:
    assert entropy_bits("abcd") == pytest.approx(2.0)
    assert entropy_bits("aaaa") == 0.0
    assert entropy_bits([]) == 0.0


def test_a_planner_that_routes_has_the_bits_of_the_kinds() -> None:
    pairs = [(kind, kind.upper()) for kind in "abcd" for _ in range(500)]
    assert routing_bits(pairs) == pytest.approx(2.0, abs=0.01)


def test_one_plan_for_all_is_no_routing() -> None:
    assert routing_bits([(kind, "R,AG") for kind in "abcd" for _ in range(50)]) == 0.0


def test_chance_is_no_routing() -> None:
    rng = random.Random(0)
    pairs = [(rng.choice("abcdefg"), rng.choice("12345678")) for _ in range(200)]
    assert routing_bits(pairs) < 0.05


def test_memory_is_that_of_a_process() -> None:
    assert 0.01 < memory_gib() < 100
