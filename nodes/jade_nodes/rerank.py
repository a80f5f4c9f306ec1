"""RR, the reranker (E2Rank, arXiv 2510.22733): a frozen tool behind R. Recorded like a role, never trained.

Invariant: at most as many passages come out as R may bring, best first, none twice; one call of the encoder ranks all
candidates, and no passage is embedded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.fusion import interleave
from jade_graph.types import Effect, Reranking, Retriever, View


@dataclass(frozen=True)
class RerankerTool:
    """Args: candidates: how many are ranked. They are found by R's own queries, whose vectors are there already."""

    candidates: int = 100
    code: ClassVar[str] = "RR"
    name: ClassVar[str] = "Reranker"
    description: ClassVar[str] = "reads the first passages together with the question and ranks 100 candidates again"
    searches: ClassVar[bool] = False

    async def act(self, view: View, retriever: Retriever | None, k: int) -> Effect:
        if not isinstance(retriever, Reranking):
            raise RetrievalError(
                "the plan ranks passages again, and the graph's retriever cannot.",
                code="RERANK_UNAVAILABLE",
                hint="--set rerank=100 gives any retriever an encoder; or a preset without RR: --preset jade",
            )
        if not view.memory.get("documents"):  # R found nothing, or was not allowed to search
            return Effect(memory={"documents": ()})
        queries = tuple(view.memory.get("queries") or (view.question,))
        found = await asyncio.gather(*(retriever.search(query, max(k, self.candidates)) for query in queries))
        candidates = interleave(found, max(k, self.candidates))
        asked = queries[0] if len(queries) == 1 else view.question
        return Effect(memory={"documents": tuple(await retriever.rerank(asked, candidates, k))})


RERANKER = RerankerTool()
