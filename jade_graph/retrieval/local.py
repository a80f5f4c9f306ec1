"""A retriever over passages in this process: words, vectors, or both fused; and the first of them ranked again.

Invariant: the first k results do not depend on how many were asked for (up to `DEPTH`), on other queries in flight, or
on whether they were asked for synchronously. Everything below the query vector is deterministic. Ranking again embeds
one prompt and no passage.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jade_graph.errors import RetrievalError, UsageError
from jade_graph.retrieval.batching import Batcher
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.dense import Hits, VectorSearch, encode_checked
from jade_graph.retrieval.fusion import reciprocal_rank_fusion
from jade_graph.retrieval.identity import Mode, check_rerank, texts
from jade_graph.retrieval.listwise import encode_prompts, order, prompt, shown_by
from jade_graph.retrieval.vectors import Encoder, Vectors
from jade_graph.retrieval.words import whole
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
    first_rank: int | None = None
    """Where it stood before the first passages were ranked again; None: they were not."""


@dataclass(frozen=True, slots=True)
class _Lists:
    bm25: Hits
    dense: Hits
    fused: Hits
    first: Hits | None = None
    """The fused list before it was ranked again."""


_Asked = tuple[str, int | tuple[int, ...]]
"""A query with the number of results asked for, or with the positions to rank."""


class LocalRetriever:
    """Satisfies `jade_graph.types.Retriever` and `Reranking`. Made by `open_corpus` and `MemoryRetriever`.

    `Passage.score` is the fused score (RRF), the cosine, or BM25's, by mode; after `rerank` the cosine to the listwise
    prompt. Concurrent searches are answered in batches by one thread, so the event loop is never held up and queries
    are embedded together.

    Args:
        passages: in the order that breaks ties.
        bm25: None in the mode "dense".
        vectors: None in the mode "bm25" where nothing is ranked again, with `encoder`.
        rerank: so many of the first passages are ranked again (`listwise`); 0: none. Those behind them keep their
            order, and have the last one's score.
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
        rerank: int = 0,
    ) -> None:
        self.name, self.mode = name, mode
        self.reranked = check_rerank(rerank)
        self._passages = tuple(passages)
        self._by_id = {p.id: p for p in self._passages}
        self._positions = {p.id: i for i, p in enumerate(self._passages)}
        self._corpus_id = corpus_id
        self._bm25, self._vectors, self._encoder = bm25, vectors, encoder
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._batcher: Batcher[_Asked, _Lists] = Batcher(self._search_many, name=f"retrieval-{name}")
        self._on_close = on_close

    def __len__(self) -> int:
        return len(self._passages)

    @property
    def corpus_id(self) -> str:
        return self._corpus_id

    @property
    def encoder_id(self) -> str | None:
        """What embeds queries and prompts; None where nothing is embedded (the mode "bm25")."""
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
        first = {i: rank for rank, (i, _) in enumerate(lists.first or (), start=1)}
        out = []
        for rank, (i, score) in enumerate(lists.fused[:k], start=1):
            (word_rank, word_score), (dense_rank, cosine) = bm25.get(i, (None, None)), dense.get(i, (None, None))
            passage = replace(self._passages[i], score=score)
            out.append(Ranked(rank, passage, word_rank, word_score, dense_rank, cosine, first.get(i)))
        return out

    async def rerank(self, query: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """At most `k` of these passages of the corpus, the best first by their stored vectors and a prompt of the query
        and the first of them: one call of the encoder, however many they are.

        Raises:
            RetrievalError: RERANK_UNAVAILABLE where there are no vectors, UNKNOWN_PASSAGE. UsageError: BAD_TOP_K.
        """
        if not self._searchable(query, k) or not passages:
            return []
        if self._vectors is None or self._encoder is None:
            raise RetrievalError(
                f"the corpus {self.name!r} was opened for words alone: it has no vectors to rank by.",
                code="RERANK_UNAVAILABLE",
                hint="--set retrieval=hybrid, or --set rerank=100, which opens the vectors too",
            )
        unknown = [p.id for p in passages if p.id not in self._positions]
        if unknown:
            raise RetrievalError(
                f"there is no passage {unknown[0]!r} in the corpus {self.name!r}.", code="UNKNOWN_PASSAGE"
            )
        positions = tuple(dict.fromkeys(self._positions[p.id] for p in passages))
        lists = await asyncio.wrap_future(self._batcher.submit((query, positions)))
        return self._results(lists.fused[:k])

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

    def _search_many(self, asked: Sequence[_Asked]) -> list[_Lists | Exception]:
        """In the batcher's thread."""
        searches = [(query, what) for query, what in asked if isinstance(what, int)]
        found = iter(self._searched(searches))
        lists = [
            next(found) if isinstance(what, int) else _Lists([], [], [(i, 0.0) for i in what]) for _, what in asked
        ]
        depths = [self.reranked if isinstance(what, int) else len(what) for _, what in asked]
        return list(self._ranked_again([query for query, _ in asked], lists, depths))

    def _searched(self, asked: Sequence[tuple[str, int]]) -> list[_Lists]:
        depths = [max(DEPTH, self.reranked, k) for _, k in asked]
        dense: list[Hits] = [[] for _ in asked]
        if self._vectors is not None and self.mode != "bm25" and asked:
            vectors = self._query_vectors([query for query, _ in asked])
            for depth in sorted(set(depths)):
                rows = [i for i, d in enumerate(depths) if d == depth]
                for i, hits in zip(rows, self._vectors.search(vectors[rows], depth), strict=True):
                    dense[i] = hits
        words: list[Hits] = [[] for _ in asked]
        if self._bm25 is not None:
            words = [self._bm25.search(query, depth) for (query, _), depth in zip(asked, depths, strict=True)]
        return [_Lists(w, d, self._fuse(w, d)) for w, d in zip(words, dense, strict=True)]

    def _ranked_again(self, queries: Sequence[str], lists: Sequence[_Lists], depths: Sequence[int]) -> Iterator[_Lists]:
        """The first `depths` of each list by the prompts' vectors: all prompts in one call of the encoder."""
        again = [i for i, depth in enumerate(depths) if depth and lists[i].fused]
        if not again or self._vectors is None or self._encoder is None:
            yield from lists
            return
        encoder = self._encoder
        shown = shown_by(encoder)
        prompts = [
            prompt(queries[i], texts([self._passages[p] for p, _ in lists[i].fused[: min(shown, depths[i])]]), encoder)
            for i in again
        ]
        vectors = self._cached(prompts, lambda new: encode_prompts(encoder, new))
        made = dict(zip(again, vectors, strict=True))
        for i, (each, depth) in enumerate(zip(lists, depths, strict=True)):
            if i not in made:
                yield each
                continue
            head, tail = each.fused[:depth], each.fused[depth:]
            ranked = [(head[r][0], score) for r, score in order(made[i], self._vectors.at([p for p, _ in head]))]
            last = ranked[-1][1]
            yield replace(each, fused=[*ranked, *((p, last) for p, _ in tail)], first=each.fused)

    def _fuse(self, words: Hits, dense: Hits) -> Hits:
        if self.mode == "bm25":
            return words
        if self.mode == "dense":
            return dense
        return reciprocal_rank_fusion([[i for i, _ in words], [i for i, _ in dense]])

    def _query_vectors(self, queries: Sequence[str]) -> Vectors:
        if self._encoder is None:
            raise RetrievalError(f"the mode {self.mode!r} needs an encoder.", code="ENCODER_MISSING")
        encoder = self._encoder
        return self._cached(queries, lambda new: encode_checked(encoder, [whole(q) for q in new], query=True))

    def _cached(self, keys: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        """The vectors of queries or prompts; only new ones are embedded, in one call."""
        new = [key for key in dict.fromkeys(keys) if key not in self._cache]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        if new:
            found.update(zip(new, encode(new), strict=True))
        for key in keys:
            self._cache[key] = found[key]
            self._cache.move_to_end(key)
        while len(self._cache) > CACHED_QUERIES:
            self._cache.popitem(last=False)
        return np.stack([found[key] for key in keys])
