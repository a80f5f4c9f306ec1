"""Ranked lists become one: fused by their ranks, or taken in turn.

Invariant: pure functions; an id comes out once. Equal fused scores keep the order in which ids were first seen (list by
list), so the same lists always give the same ranking.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from jade_graph.types import Passage

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


def interleave(ranked: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """Take the lists rank by rank, drop what was already taken, stop at `k`."""
    taken: dict[str, Passage] = {}
    for rank in range(max(map(len, ranked), default=0)):
        for passages in ranked:
            if rank < len(passages) and len(taken) < k:
                taken.setdefault(passages[rank].id, passages[rank])
    return list(taken.values())
