"""Word search over a world: what tables and tests use where embedding thousands of passages would take minutes.

Invariant: deterministic and without a model. The full index (`jade index microworld:..`) adds an encoder to the same
BM25; on microworld, where names decide, both find the same evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from jade_graph.retrieval.bm25 import Bm25
from jade_graph.types import Passage


class WordSearch:
    """A `Retriever` by BM25 over title and text."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)
        self._index = Bm25.build([str(p) for p in self._passages])
        content = "\x1e".join(f"{p.id}\x1f{p}" for p in self._passages)
        self._corpus_id = f"words-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def corpus_id(self) -> str:
        return self._corpus_id

    async def search(self, query: str, k: int) -> list[Passage]:
        """The `k` passages with the highest BM25 score, best first."""
        return [replace(self._passages[i], score=score) for i, score in self._index.search(query, k)]
