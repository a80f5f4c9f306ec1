"""Labels become slates: what the prompt shows, and which documents are scored.

Invariant: a slate depends on the labels and the starting encoder alone, not on the order of lines or documents: the
prompt shows documents in the order in which the encoder ranks them, as it will in use, never in that of the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jade_graph.data.labels import Labelled
from jade_graph.retrieval.identity import texts
from jade_graph.retrieval.listwise import prompt
from jade_graph.retrieval.vectors import Encoder, Vectors
from jade_graph.retrieval.words import whole

_SLICE = 256


@dataclass(frozen=True, slots=True)
class Slate:
    """A query with its prompt, and the documents that are scored with their labels."""

    query: str
    prompt: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]


def slates(
    rows: Sequence[Labelled],
    encoder: Encoder,
    size: int = 16,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Slate]:
    """One slate for each row that teaches something.

    Args:
        size: most documents that are scored: half of them at most the best labelled, then those that the encoder takes
            for the nearest: hard negatives.
        progress: called with (documents embedded, all).
    """
    learned = [row for row in rows if row.teaches]
    vectors = _embedded(learned, encoder, progress)
    out = []
    for row in learned:
        found = texts([d.passage for d in row.documents])
        query = encoder.encode([whole(row.query)], query=True)[0]
        near = np.round(np.stack([vectors[text] for text in found]) @ query, 6)
        order = sorted(range(len(found)), key=lambda i: (-near[i], row.documents[i].id))
        labels = [row.documents[i].label for i in order]
        best = sorted(range(len(order)), key=lambda i: -labels[i])
        good = [i for i in best if labels[i] > 0][: max(1, size // 2)]
        kept = sorted([*good, *[i for i in range(len(order)) if i not in set(good)][: size - len(good)]])
        shown = [found[i] for i in order]
        out.append(
            Slate(
                whole(row.query),
                prompt(row.query, shown, encoder),
                tuple(shown[i] for i in kept),
                tuple(labels[i] for i in kept),
            )
        )
    return out


def _embedded(
    rows: Sequence[Labelled], encoder: Encoder, progress: Callable[[int, int], None] | None
) -> dict[str, Vectors]:
    new = sorted({text for row in rows for text in texts([d.passage for d in row.documents])}, key=len)
    out: dict[str, Vectors] = {}
    for start in range(0, len(new), _SLICE):
        part = new[start : start + _SLICE]
        out.update(zip(part, encoder.encode(part), strict=True))
        if progress is not None:
            progress(len(out), len(new))
    return out
