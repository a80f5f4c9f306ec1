"""R, the retriever: a frozen tool. Recorded like a role, never trained.

Invariant: at most `k` passages come out, best first, none twice, also where several queries were asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.fusion import interleave
from jade_graph.types import Effect, Retriever, View


@dataclass(frozen=True)
class RetrieverTool:
    code: ClassVar[str] = "R"
    name: ClassVar[str] = "Retriever"
    description: ClassVar[str] = "searches the corpus and brings passages"

    async def act(self, view: View, retriever: Retriever | None, k: int) -> Effect:
        if retriever is None:
            raise RetrievalError(
                "the plan retrieves, but the graph has no corpus.",
                code="NO_CORPUS",
                hint="jade index PATH --corpus NAME",
            )
        queries = view.memory.get("queries") or (view.question,)
        ranked = await asyncio.gather(*(retriever.search(query, k) for query in queries))
        return Effect(memory={"documents": tuple(interleave(ranked, k))})


RETRIEVER = RetrieverTool()
