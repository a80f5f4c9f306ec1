"""Any retriever, its first passages ranked again by a listwise prompt.

Invariant: what comes out is what the retriever brought, in a better order. A retriever of ours ranks by the vectors
that its corpus stores; for one that keeps none, a passage is embedded the first time it is brought, and remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jade_graph.errors import UsageError
from jade_graph.retrieval.batching import Batcher
from jade_graph.retrieval.dense import encode_checked
from jade_graph.retrieval.identity import check_rerank, corpus_id, row_id, texts
from jade_graph.retrieval.listwise import encode_prompts, named, order, prompt
from jade_graph.retrieval.vectors import Encoder, Vectors
from jade_graph.types import Passage, Retriever

REMEMBERED = 20_000
"""Vectors of passages that are kept, 30 MB at 384 dimensions."""

_Asked = tuple[str, Sequence[Passage]]


class RerankedRetriever:
    """Satisfies `Retriever` and `Reranking`, over a retriever that only satisfies the first.

    Args:
        retriever: finds the candidates.
        encoder: embeds prompts, and passages that are new.
        rerank: candidates that are ranked again.
    """

    def __init__(self, retriever: Retriever, encoder: Encoder, rerank: int = 100) -> None:
        self._retriever, self._encoder, self.reranked = retriever, encoder, check_rerank(rerank)
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._batcher: Batcher[_Asked, list[tuple[int, float]]] = Batcher(self._order_many, name="rerank")

    @property
    def corpus_id(self) -> str:
        told = named(self.reranked, self._encoder)
        return corpus_id(self._retriever.corpus_id, encoder=self._encoder.id, rerank=told)

    @property
    def encoder_id(self) -> str:
        return self._encoder.id

    async def search(self, query: str, k: int) -> list[Passage]:
        if k < 1:
            raise UsageError(f"top-k is {k}: at least 1 passage must be asked for.", code="BAD_TOP_K", hint="k=5")
        found = await self._retriever.search(query, max(k, self.reranked))
        head, tail = found[: self.reranked], found[self.reranked :]
        ranked = await self.rerank(query, head, len(head)) if head else []
        last = ranked[-1].score if ranked else 0.0
        return [*ranked, *(replace(p, score=last) for p in tail)][:k]

    async def rerank(self, query: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        if not passages or not query.strip():
            return list(passages[:k])
        ranked = await asyncio.wrap_future(self._batcher.submit((query, passages)))
        return [replace(passages[i], score=score) for i, score in ranked[:k]]

    def close(self) -> None:
        self._batcher.close()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)
        for name in ("aclose", "close"):
            ends = getattr(self._retriever, name, None)
            if ends is not None:
                done = ends()
                if asyncio.iscoroutine(done):
                    await done
                return

    def _order_many(self, asked: Sequence[_Asked]) -> list[list[tuple[int, float]] | Exception]:
        """In the batcher's thread."""
        self._embed([p for _, passages in asked for p in passages])
        prompts = [prompt(query, texts(passages), self._encoder) for query, passages in asked]
        made = encode_prompts(self._encoder, prompts)
        out: list[list[tuple[int, float]] | Exception] = [
            order(vector, np.stack([self._vectors[row_id(p)] for p in passages]))
            for vector, (_, passages) in zip(made, asked, strict=True)
        ]
        while len(self._vectors) > REMEMBERED:
            self._vectors.popitem(last=False)
        return out

    def _embed(self, passages: Sequence[Passage]) -> None:
        by_row = {row_id(p): p for p in passages}
        new = {row: p for row, p in by_row.items() if row not in self._vectors}
        if new:
            self._vectors.update(zip(new, encode_checked(self._encoder, texts(list(new.values()))), strict=True))
        for row in by_row:
            self._vectors.move_to_end(row)
