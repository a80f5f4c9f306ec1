"""Merging ranked lists.

Invariant: no id comes out twice, and the result depends on nothing but the lists and their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.types import Passage, Run, path


def interleave(ranked: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """Take the lists rank by rank, drop what was already taken, stop at `k`."""
    taken: dict[str, Passage] = {}
    for rank in range(max(map(len, ranked), default=0)):
        for passages in ranked:
            if rank < len(passages) and len(taken) < k:
                taken.setdefault(passages[rank].id, passages[rank])
    return list(taken.values())


def retrieved_passages(run: Run, k: int) -> list[Passage]:
    """What a run shows at a budget of `k` passages: the lists of its searches, interleaved.

    Searches stand in the order of the trace, so that which parallel sub-question ended first makes no difference, and
    a decomposed run shows the best of each sub-question instead of the first one's list.
    """
    searches = [t for t in run.transitions if t.role == "R" and t.error is None]
    searches.sort(key=lambda t: (path(t.trace_node), t.seq))
    return interleave([[_passage(d) for d in t.parsed.get("documents", ())] for t in searches], k)


def _passage(document: Mapping[str, Any]) -> Passage:
    told = document.get("metadata") or {}
    return Passage(
        document["id"], document.get("text", ""), document.get("title", ""), document.get("score", 0.0), told
    )
