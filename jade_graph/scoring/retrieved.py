"""What a run retrieved, at a budget of passages.

Invariant: it depends on the record alone, and not on which of two parallel branches ended first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jade_graph.retrieval.fusion import interleave
from jade_graph.types import Passage, Run, path


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
