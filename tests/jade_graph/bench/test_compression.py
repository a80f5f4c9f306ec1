"""The toy of compression: what is claimed of it."""

from __future__ import annotations

from jade_graph.bench.compression import run


def test_where_a_uniform_penalty_collapses_the_weighted_one_keeps_the_essential() -> None:
    told = run(quick=True)
    assert told["collapsed_uniform_alpha_6"] == told["seeds"] == 2
    assert told["collapsed_weighted_alpha_6"] == 0
    assert told["accuracy_weighted_alpha_6"] > 0.9
    assert 58 < told["tokens_weighted_alpha_6"] < 63
    assert abs(told["tokens_weighted_alpha_3"] - told["tokens_uniform_alpha_3"]) < 2  # there they tie
    assert abs(told["accuracy_weighted_alpha_3"] - told["accuracy_uniform_alpha_3"]) < 0.02
