"""A retriever over passages in this process: words, vectors, or both fused.

Invariant: the first k results do not depend on how many were asked for (up to `DEPTH`), on other queries in flight, or
on whether they were asked for synchronously. Everything below the query vector is deterministic.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jade_graph.errors import RetrievalError, UsageError
from jade_graph.retrieval.batching import Batcher
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.dense import Hits, VectorSearch, encode_checked
from jade_graph.retrieval.encoder import Encoder, Vectors
from jade_graph.retrieval.fusion import reciprocal_rank_fusion
from jade_graph.retrieval.identity import Mode
from jade_graph.types import Passage

DEPTH = 100
"""Ranks that each list brings to the fusion (more when more results are asked for)."""

CACHED_QUERIES = 4096


@dataclass(frozen=True, slots=True)
class Ranked:
    """Why a passage stands where it does. Ranks count from 1; None: not in that list's first `DEPTH`."""

    rank: int
    passage: Passage
    bm25_rank: int | None = None
    bm25_score: float | None = None
    dense_rank: int | None = None
    dense_score: float | None = None


@dataclass(frozen=True, slots=True)
class _Lists:
    bm25: Hits
    dense: Hits
    fused: Hits


class LocalRetriever:
    """Satisfies `jade_graph.types.Retriever`. Made by `open_corpus` and `MemoryRetriever`.

    `Passage.score` is the fused score (RRF), the cosine, or BM25's, by mode. Concurrent searches are answered in
    batches by one thread, so the event loop is never held up and queries are embedded together.

    Args:
        passages: in the order that breaks ties.
        bm25: None in the mode "dense".
        vectors: None in the mode "bm25", with `encoder`.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        corpus_id: str,
        mode: Mode,
        bm25: Bm25 | None,
        vectors: VectorSearch | None,
        encoder: Encoder | None,
        name: str = "memory",
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name, self.mode = name, mode
        self._passages = tuple(passages)
        self._by_id = {p.id: p for p in self._passages}
        self._corpus_id = corpus_id
        self._bm25, self._vectors, self._encoder = bm25, vectors, encoder
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._batcher: Batcher[tuple[str, int], _Lists] = Batcher(self._search_many, name=f"retrieval-{name}")
        self._on_close = on_close

    def __len__(self) -> int:
        return len(self._passages)

    @property
    def corpus_id(self) -> str:
        return self._corpus_id

    @property
    def encoder_id(self) -> str | None:
        """What embeds queries; None in the mode "bm25"."""
        return self._encoder.id if self._encoder is not None else None

    @property
    def passages(self) -> tuple[Passage, ...]:
        return self._passages

    async def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages, best first; none for a query without text. Raises `UsageError` BAD_TOP_K."""
        if not self._searchable(query, k):
            return []
        lists = await asyncio.wrap_future(self._batcher.submit((query, k)))
        return self._results(lists.fused[:k])

    def search_sync(self, query: str, k: int) -> list[Passage]:
        """`search` for callers without an event loop."""
        if not self._searchable(query, k):
            return []
        return self._results(self._batcher.submit((query, k)).result().fused[:k])

    def explain(self, query: str, k: int) -> list[Ranked]:
        """The results of `search` with the rank and score that each list gave them."""
        if not self._searchable(query, k):
            return []
        lists = self._batcher.submit((query, k)).result()
        bm25 = {i: (rank, score) for rank, (i, score) in enumerate(lists.bm25, start=1)}
        dense = {i: (rank, score) for rank, (i, score) in enumerate(lists.dense, start=1)}
        out = []
        for rank, (i, score) in enumerate(lists.fused[:k], start=1):
            words, meaning = bm25.get(i, (None, None)), dense.get(i, (None, None))
            out.append(Ranked(rank, replace(self._passages[i], score=score), *words, *meaning))
        return out

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids, in this order. Raises `RetrievalError` UNKNOWN_PASSAGE."""
        missing = [i for i in ids if i not in self._by_id]
        if missing:
            raise RetrievalError(
                f"there is no passage {missing[0]!r} in the corpus {self.name!r}.", code="UNKNOWN_PASSAGE"
            )
        return [self._by_id[i] for i in ids]

    def close(self) -> None:
        self._batcher.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def _searchable(self, query: str, k: int) -> bool:
        if k < 1:
            raise UsageError(f"top-k is {k}: at least 1 passage must be asked for.", code="BAD_TOP_K", hint="k=5")
        return bool(query.strip())

    def _results(self, hits: Hits) -> list[Passage]:
        return [replace(self._passages[i], score=score) for i, score in hits]

    def _search_many(self, asked: Sequence[tuple[str, int]]) -> list[_Lists | Exception]:
        """In the batcher's thread."""
        depths = [max(DEPTH, k) for _, k in asked]
        dense: list[Hits] = [[] for _ in asked]
        if self._vectors is not None:
            vectors = self._query_vectors([query for query, _ in asked])
            for depth in sorted(set(depths)):
                rows = [i for i, d in enumerate(depths) if d == depth]
                for i, hits in zip(rows, self._vectors.search(vectors[rows], depth), strict=True):
                    dense[i] = hits
        words: list[Hits] = [[] for _ in asked]
        if self._bm25 is not None:
            words = [self._bm25.search(query, depth) for (query, _), depth in zip(asked, depths, strict=True)]
        return [_Lists(w, d, self._fuse(w, d)) for w, d in zip(words, dense, strict=True)]

    def _fuse(self, words: Hits, dense: Hits) -> Hits:
        if self.mode == "bm25":
            return words
        if self.mode == "dense":
            return dense
        return reciprocal_rank_fusion([[i for i, _ in words], [i for i, _ in dense]])

    def _query_vectors(self, queries: Sequence[str]) -> Vectors:
        if self._encoder is None:
            raise RetrievalError(f"the mode {self.mode!r} needs an encoder.", code="ENCODER_MISSING")
        new = [query for query in dict.fromkeys(queries) if query not in self._cache]
        found = {query: self._cache[query] for query in queries if query in self._cache}
        found.update(zip(new, encode_checked(self._encoder, new, query=True), strict=True))
        for query in queries:
            self._cache[query] = found[query]
            self._cache.move_to_end(query)
        while len(self._cache) > CACHED_QUERIES:
            self._cache.popitem(last=False)
        return np.stack([found[query] for query in queries])
