"""Fusing ranked lists into one.

Invariant: pure functions; an id comes out once, and equal fused scores keep the order in which ids were first seen
(list by list), so the same lists always give the same ranking.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from jade_graph.retrieval.ranking import interleave

__all__ = ["RRF_K", "interleave", "reciprocal_rank_fusion"]

RRF_K = 60

Key = TypeVar("Key", bound=Hashable)


def reciprocal_rank_fusion(ranked: Sequence[Sequence[Key]], *, rrf_k: int = RRF_K) -> list[tuple[Key, float]]:
    """score(d) = sum over lists of 1 / (rrf_k + rank of d), ranks from 1 (Cormack, Clarke and Büttcher, SIGIR 2009).

    Args:
        ranked: lists of ids, best first. An id that a list names twice counts at its first place.

    Returns:
        (id, score), highest score first.
    """
    scores: dict[Key, float] = {}
    for ids in ranked:
        for rank, key in enumerate(dict.fromkeys(ids), start=1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (rrf_k + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
