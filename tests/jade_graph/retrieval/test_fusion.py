"""Fusion against hand-worked ranks and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.retrieval.fusion import RRF_K, interleave, reciprocal_rank_fusion
from jade_graph.types import Passage

RANKING = st.lists(st.integers(0, 12), unique=True, max_size=10)


def test_scores_are_sums_of_reciprocal_ranks() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b", "c", "a"]]))
    assert fused["a"] == pytest.approx(1 / (RRF_K + 1) + 1 / (RRF_K + 3))
    assert fused["b"] == pytest.approx(1 / (RRF_K + 2) + 1 / (RRF_K + 1))
    assert fused["c"] == pytest.approx(1 / (RRF_K + 2))


def test_order_and_ties() -> None:
    assert [key for key, _ in reciprocal_rank_fusion([["a", "b"], ["b", "a"]])] == ["a", "b"]
    assert [key for key, _ in reciprocal_rank_fusion([["x", "a"], ["a", "y"]])] == ["a", "x", "y"]
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []


def test_an_id_that_a_list_repeats_counts_once() -> None:
    assert reciprocal_rank_fusion([["a", "a", "b"]]) == reciprocal_rank_fusion([["a", "b"]])


@given(st.lists(RANKING, max_size=4))
def test_every_id_once_and_scores_fall(lists: list[list[int]]) -> None:
    fused = reciprocal_rank_fusion(lists)
    assert sorted(key for key, _ in fused) == sorted(set().union(*lists) if lists else set())
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(RANKING)
def test_one_list_keeps_its_order_and_agreement_wins(ranking: list[int]) -> None:
    assert [key for key, _ in reciprocal_rank_fusion([ranking])] == ranking
    assert [key for key, _ in reciprocal_rank_fusion([ranking, ranking])] == ranking


@given(st.lists(RANKING, max_size=4), st.integers(0, 15))
def test_interleaving_takes_rank_by_rank(lists: list[list[int]], k: int) -> None:
    ranked = [[Passage(str(i), "") for i in ids] for ids in lists]
    taken = [p.id for p in interleave(ranked, k)]
    assert len(taken) == min(k, len(set().union(*lists) if lists else set()))
    assert len(set(taken)) == len(taken)
    best = {str(i): (ids.index(i), n) for n, ids in reversed(list(enumerate(lists))) for i in ids}
    for n, ids in enumerate(lists):
        for i in ids:
            best[str(i)] = min(best[str(i)], (ids.index(i), n))
    assert [best[i] for i in taken] == sorted(best[i] for i in taken)
