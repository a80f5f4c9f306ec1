"""How good a ranked list is, against graded labels.

Invariant: pure functions of ids and labels; a document without a label is of no use, and a query without a useful
document has no figure (None), never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def ndcg(ranked: Sequence[str], labels: Mapping[str, float], k: int = 10) -> float | None:
    """DCG of the first `k` over that of the best order: sum of label / log2(rank + 1) (Järvelin and Kekäläinen, 2002).

    An id that comes twice counts at its first place.
    """
    best = _dcg(sorted((v for v in labels.values() if v > 0), reverse=True)[:k])
    if best == 0:
        return None
    return _dcg([labels.get(i, 0.0) for i in list(dict.fromkeys(ranked))[:k]]) / best


def recall(ranked: Sequence[str], labels: Mapping[str, float], k: int = 5) -> float | None:
    """Share of the useful documents (a label above 0) that are among the first `k`."""
    useful = {i for i, label in labels.items() if label > 0}
    if not useful:
        return None
    return len(useful & set(list(dict.fromkeys(ranked))[:k])) / len(useful)


def _dcg(labels: Sequence[float]) -> float:
    return math.fsum(label / math.log2(rank + 1) for rank, label in enumerate(labels, start=1))
