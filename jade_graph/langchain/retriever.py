"""The planned, multi-step retrieval of a graph as a drop-in LangChain retriever.

Invariant: at most k documents, none twice, with the metadata that they were indexed with; what the graph's selector
kept comes first, then the rest by rank across its searches.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from jade_graph.errors import UsageError
from jade_graph.langchain.outputs import document_of, failure_of, passage_of
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.langchain.tool import waits
from jade_graph.retrieval.fusion import interleave
from jade_graph.sync import run_sync
from jade_graph.types import Passage, Run, path


class JadeRetriever(BaseRetriever):
    """Runs the graph on the query and returns what it found.

    Args:
        graph: a `JadeGraph`. Its plan decides what is searched for, and whether the question is split; its last
            answer is computed too, and thrown away.
        k: documents returned; None: everything that was found.
        selected_only: leave out what the graph's document selector dropped.
        search_anyway: where the plan searched nothing (it answers without documents), search the query as it is.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    graph: Any
    k: int | None = None
    selected_only: bool = False
    search_anyway: bool = True

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not isinstance(self.graph, JadeGraph):
            raise TypeError(f"JadeRetriever takes a JadeGraph, not {type(self.graph).__name__}")
        _check_k(self.k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        wanted = self.k if k is None else k
        _check_k(wanted)
        graph = self.graph.variant(k=max(wanted, self.graph.k)) if wanted else self.graph
        run = await graph.arun(query, config={"callbacks": run_manager.get_child()})
        if run.status == "running":  # nothing is searched before it is approved
            raise UsageError(
                waits(run.id),
                code="RUN_WAITS",
                hint="a graph without approve; or call the retriever in a LangGraph node, whose graph is resumed",
            )
        found = ranked(run, self.selected_only)
        searched = any(t.role == "R" and t.error is None for t in run.transitions)
        if not searched and self.search_anyway and graph.retriever is not None:
            found = await graph.retriever.search(query, wanted or graph.k)
        if not found and run.status == "failed":
            raise failure_of(run)
        return [document_of(p) for p in found[:wanted]]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return run_sync(self._aget_relevant_documents(query, run_manager=run_manager, k=k))  # type: ignore[arg-type]


def ranked(run: Run, selected_only: bool = False) -> list[Passage]:
    """What a run found, best first: the selected passages in order, then the others interleaved by rank."""
    searches: list[list[Passage]] = []
    latest: dict[tuple[str, int], list[Passage]] = {}
    selected: list[Passage] = []
    dropped: set[str] = set()
    # In the order of the trace: which parallel sub-question ended first makes no difference.
    for t in sorted(run.transitions, key=lambda t: (path(t.trace_node), t.seq)):
        place = (t.trace_node, t.round)
        if t.role == "R" and t.error is None:
            latest[place] = [passage_of(d) for d in t.parsed["documents"]]
            searches.append(latest[place])
        elif t.role == "DS" and isinstance(t.parsed, list | tuple):
            seen = latest.get(place, [])
            chosen = {int(i) for i in t.parsed}
            selected += [p for i, p in enumerate(seen) if i in chosen]
            dropped |= {p.id for i, p in enumerate(seen) if i not in chosen}
    rest = interleave(searches, sum(map(len, searches))) if searches else []
    kept = {p.id for p in selected}
    if selected_only:
        rest = [p for p in rest if p.id not in dropped]
    unique: dict[str, Passage] = {}
    for passage in (*selected, *(p for p in rest if p.id not in kept)):
        unique.setdefault(passage.id, passage)
    return list(unique.values())


def _check_k(k: int | None) -> None:
    if k is not None and k < 1:
        raise UsageError(f"k is {k}: a retriever brings at least one document.", code="BAD_K", hint="k=5")
