"""Planned retrieval as a LangChain retriever, and LangChain's retrievers as what R searches."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from jade_graph import JadeGraph, Passage, RunStore
from jade_graph.errors import JadeError, RetrievalError, UsageError
from jade_graph.langchain import JadeRetriever, LangChainRetriever
from jade_graph.langchain.adapting import identity
from jade_graph.testing.retrievers import RetrieverConformance


def ids(documents: list[Document]) -> list[str | None]:
    return [d.id for d in documents]


def planned(scripted: Any, plan: str, **roles: Any) -> Any:
    return scripted(PL=lambda a: f"<workflow>{plan if a.view.level == 'root' else 'R,AG'}</workflow>", **roles)


class Named:
    """Finds by the first letter of the query."""

    corpus_id = "named"
    found: ClassVar = {"l": ["x", "a", "b"], "r": ["x", "c"], "W": ["w"]}

    async def search(self, query: str, k: int) -> list[Passage]:
        names = self.found.get(query[0], [])[:k]
        return [Passage(n, f"text {n}", score=1.0 - i / 10, metadata={"n": n}) for i, n in enumerate(names)]


async def test_a_question_that_is_split_brings_the_best_of_each_part_once(scripted: Any) -> None:
    retriever = JadeRetriever(graph=JadeGraph(planned(scripted, "QDP"), retriever=Named()))
    found = await retriever.ainvoke("What?")
    assert ids(found) == ["x", "a", "c", "b"]  # "left?" and "right?" by rank, x once
    assert [d.metadata["n"] for d in found] == ids(found)
    assert ids(await retriever.ainvoke("What?", k=2)) == ["x", "a"]


def test_what_the_selector_kept_comes_first(scripted: Any, passages: Any) -> None:
    backbone = planned(scripted, "R,DS,AG", DS="<id>Document2</id>")
    graph = JadeGraph(backbone, retriever=passages)
    assert ids(JadeRetriever(graph=graph).invoke("Q?")) == ["p2", "p0", "p1", "p3", "p4"]
    assert ids(JadeRetriever(graph=graph, selected_only=True).invoke("Q?")) == ["p2"]
    assert ids(JadeRetriever(graph=graph, k=2).invoke("Q?")) == ["p2", "p0"]


def test_more_than_the_graphs_k_is_searched_for(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, k=2)
    assert len(JadeRetriever(graph=graph, k=7).invoke("Q?")) == 7
    assert len(JadeRetriever(graph=graph).invoke("Q?")) == 2


def test_a_plan_without_a_search_is_searched_for_all_the_same(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(planned(scripted, "AG"), retriever=passages)
    assert ids(JadeRetriever(graph=graph, k=2).invoke("Q?")) == ["p0", "p1"]
    assert JadeRetriever(graph=graph, search_anyway=False).invoke("Q?") == []


def test_what_was_found_before_a_failure_is_not_lost(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(AG=lambda a: 1 / 0), retriever=passages)
    assert len(JadeRetriever(graph=graph).invoke("Q?")) == 5
    with pytest.raises(JadeError, match="NO_CORPUS"):
        JadeRetriever(graph=JadeGraph(scripted())).invoke("Q?")


def test_wrong_arguments(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages)
    with pytest.raises(UsageError, match="BAD_K"):
        JadeRetriever(graph=graph, k=0)
    with pytest.raises(TypeError, match="takes a JadeGraph"):
        JadeRetriever(graph=graph.graph)


# --- the other way round ----------------------------------------------------------------------------------------------
DOCUMENTS = [
    Document(id="d1", page_content="Dune is by Frank Herbert.", metadata={"title": "Dune", "year": date(1965, 8, 1)}),
    Document(page_content="Emma is by Jane Austen.", metadata={"source": "e.txt"}),
]


class Store(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if query == "broken":
            raise ConnectionError("down")
        words = set(query.lower().strip("?").split())
        hits = [d for d in DOCUMENTS if words & set(d.page_content.lower().strip(".").split())]
        return [*hits, *hits]


class TestLangChainRetriever(RetrieverConformance):
    queries = ("who wrote dune", "emma", "by")

    @pytest.fixture
    def retriever(self) -> Any:
        return LangChainRetriever(Store())


async def test_a_langchain_retriever_is_what_the_graph_searches(scripted: Any) -> None:
    graph = JadeGraph(scripted(), retriever=Store())
    out = await graph.ainvoke("Who wrote Dune?")
    (document,) = out["documents"]
    assert (document.id, document.metadata["title"]) == ("d1", "Dune")
    assert "1965" in document.metadata["year"]  # a run's record is JSON
    assert graph.retriever is not None
    assert graph.retriever.corpus_id == "langchain:Store"


async def test_its_failures_have_a_name() -> None:
    with pytest.raises(RetrievalError, match=r"RETRIEVER_FAILED.*ConnectionError"):
        await LangChainRetriever(Store()).search("broken", 3)


def test_documents_without_ids_get_stable_ones() -> None:
    assert identity(DOCUMENTS[0]) == "d1"
    assert identity(DOCUMENTS[1]) == identity(DOCUMENTS[1].model_copy(deep=True))
    assert identity(DOCUMENTS[1]) != identity(Document(page_content="Emma is by Jane Austen."))


def test_lists_of_texts_documents_and_passages_are_indexed(scripted: Any) -> None:
    graph = JadeGraph(scripted(), retriever=["Dune is by Frank Herbert", DOCUMENTS[1], Passage("p", "Ulysses")])
    found = JadeRetriever(graph=graph, k=1).invoke("Emma Austen")
    assert found[0].metadata["source"] == "e.txt"


@pytest.mark.parametrize(
    "metadata",
    [
        {1: "a", "b": 2},
        {None: 1, (1, 2): 3, "k": {True: 1, "z": [{2: 1, "x": 1}]}},
        {"kinds": {1, "a"}, "when": date(2020, 1, 1), "raw": b"x"},
    ],
)
def test_metadata_of_any_kinds_are_carried_and_recorded(
    scripted: Any, tmp_path: Path, metadata: dict[Any, Any]
) -> None:
    document = Document(page_content="Dune is by Ann Lee.", metadata=metadata)
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=[document], recorder=store)
        run = graph.run("Who wrote Dune?")
        assert (run.status, run.record_error) == ("answered", None)
        back = store.get(run.id)
        assert [d.id for d in back.documents] == [d.id for d in run.documents]
        assert set(back.documents[0].metadata) == set(map(str, metadata))
        assert graph.fork(back, at=len(back.transitions) - 1, answer="x").answer == "x"
    other_order = Document(page_content=document.page_content, metadata=dict(reversed(list(metadata.items()))))
    assert identity(other_order) == identity(document)
