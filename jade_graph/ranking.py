"""Merging ranked lists.

Invariant: no id comes out twice, and the result depends on nothing but the lists and their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from jade_graph.types import Passage


def interleave(ranked: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """Take the lists rank by rank, drop what was already taken, stop at `k`."""
    taken: dict[str, Passage] = {}
    for rank in range(max(map(len, ranked), default=0)):
        for passages in ranked:
            if rank < len(passages) and len(taken) < k:
                taken.setdefault(passages[rank].id, passages[rank])
    return list(taken.values())
