"""Ranking again by a listwise prompt: what it costs, what it changes, and on which retrievers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jade_graph.errors import RetrievalError, UsageError
from jade_graph.retrieval import dense, listwise
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.encoder import HashingEncoder, Vectors
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.retrieval.reranked import RerankedRetriever
from jade_graph.testing.retrievers import RetrieverConformance
from jade_graph.types import Passage, Reranking


class Counting(HashingEncoder):
    """Remembers the calls, and reads prompts of few tokens (words)."""

    prompt_tokens, prompt_documents = 60, 4

    def __init__(self) -> None:
        super().__init__(64)
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.calls.append(list(texts))
        return super().encode(texts, query=query)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_prompts(self, texts: Sequence[str]) -> Vectors:
        return self.encode(texts, query=True)


MANY = [Passage(f"d{i}", f"a painter of boats number{i} lives in town{i % 7}", f"Title {i}") for i in range(150)]


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
class TestConformance(RetrieverConformance):
    queries = ("painter born in Norwick", "city with bridges", "Ann Lee", "boats on the river")

    @pytest.fixture
    def retriever(self, mode: str, world: list[Passage]) -> MemoryRetriever:
        return MemoryRetriever(world, mode, Counting(), rerank=5)


class TestConformanceOfAny(RetrieverConformance):
    queries = ("painter born in Norwick", "city with bridges", "Ann Lee")

    @pytest.fixture
    def retriever(self, world: list[Passage]) -> RerankedRetriever:
        return RerankedRetriever(MemoryRetriever(world), Counting(), 5)


async def test_ranking_a_hundred_again_costs_exactly_one_call_more() -> None:
    plain, again = Counting(), Counting()
    without = MemoryRetriever(MANY, "hybrid", plain)
    with_ = MemoryRetriever(MANY, "hybrid", again, rerank=100)
    plain.calls.clear(), again.calls.clear()
    await without.search("painter in town3", 5)
    await with_.search("painter in town3", 5)
    assert len(again.calls) == len(plain.calls) + 1
    assert [len(call) for call in again.calls] == [1, 1]  # the query, the prompt; no passage
    again.calls.clear()
    brought = await without.search("painter in town3", 100)
    ranked = await with_.rerank("painter in town3", brought, 100)
    assert len(brought) == 100
    assert {p.id for p in ranked} == {p.id for p in brought}
    assert [len(call) for call in again.calls] <= [1]  # none where the prompt is known already


async def test_scores_are_the_stored_vectors_against_the_prompt() -> None:
    encoder = Counting()
    retriever = MemoryRetriever(MANY, "dense", encoder, rerank=100)
    first = MemoryRetriever(MANY, "dense", encoder).search_sync("boats in town5", 100)
    shown = listwise.prompt("boats in town5", [str(p) for p in first], encoder)
    made = encoder.encode_prompts([shown])[0]
    expected = {p.id: float(encoder.encode([str(p)])[0] @ made) for p in first}
    found = await retriever.search("boats in town5", 100)
    assert {p.id: p.score for p in found} == pytest.approx(expected, abs=2e-6)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


async def test_the_order_of_what_is_not_shown_changes_nothing() -> None:
    retriever = MemoryRetriever(MANY, "hybrid", Counting())
    brought = await retriever.search("painter in town3", 60)
    shown, rest = brought[:4], brought[4:]
    one = await retriever.rerank("painter in town3", [*shown, *rest], 60)
    other = await retriever.rerank("painter in town3", [*shown, *rest[::-1]], 60)
    assert {p.id: p.score for p in one} == {p.id: p.score for p in other}


async def test_results_behind_the_ranked_ones_keep_their_order() -> None:
    plain = await MemoryRetriever(MANY, "dense", Counting()).search("boats in town5", 30)
    again = await MemoryRetriever(MANY, "dense", Counting(), rerank=10).search("boats in town5", 30)
    assert {p.id for p in again[:10]} == {p.id for p in plain[:10]}
    assert [p.id for p in again[10:]] == [p.id for p in plain[10:]]
    assert {p.score for p in again[10:]} == {again[9].score}


class Held(Counting):
    """Waits in its first call until all who search together have asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = threading.Event(), threading.Event()
        self.released.set()

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.asked.set()
        assert self.released.wait(30)
        return super().encode(texts, query=query)


async def test_concurrent_searches_embed_their_prompts_together() -> None:
    encoder = Held()
    retriever = MemoryRetriever(MANY, "hybrid", encoder, rerank=50)
    alone = [await MemoryRetriever(MANY, "hybrid", Counting(), rerank=50).search(f"town{i}", 5) for i in range(6)]
    encoder.calls.clear()
    encoder.asked.clear()
    encoder.released.clear()
    first = asyncio.create_task(retriever.search("town0", 5))
    await asyncio.to_thread(encoder.asked.wait, 30)  # its batch has begun, with nothing else in it
    others = [asyncio.create_task(retriever.search(f"town{i}", 5)) for i in range(1, 6)]
    await asyncio.sleep(0)  # each has asked when it first waits
    encoder.released.set()
    together = await asyncio.gather(first, *others)
    assert [[p.id for p in found] for found in together] == [[p.id for p in found] for found in alone]
    assert [len(texts) for texts in encoder.calls] == [1, 1, 5, 5]  # queries and prompts of one, then of five


@pytest.mark.parametrize("limit", [20_000, 10])
async def test_a_corpus_on_disk_ranks_as_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("jade_graph.retrieval.corpus.EXACT_LIMIT", limit)  # below it Chroma answers
    build_corpus(MANY, "many", tmp_path, Counting())
    for mode in ("bm25", "dense"):
        stored = open_corpus("many", tmp_path, Counting(), mode=mode, rerank=50)
        memory = MemoryRetriever(MANY, mode, Counting(), rerank=50)
        assert stored.corpus_id == memory.corpus_id
        if mode == "bm25" or limit > 150:
            found = await stored.search("painter in town3", 10)
            assert [p.id for p in found] == [p.id for p in await memory.search("painter in town3", 10)]
        stored.close()


def test_a_corpus_id_tells_that_and_how_it_ranks_again(world: list[Passage]) -> None:
    ids = [MemoryRetriever(world, "hybrid", Counting(), rerank=n).corpus_id for n in (0, 10, 100)]
    assert len(set(ids)) == 3
    assert MemoryRetriever(world, "hybrid", Counting()).corpus_id == ids[0]
    assert len({MemoryRetriever(world, "bm25", HashingEncoder(d), rerank=9).corpus_id for d in (32, 64)}) == 2


async def test_who_has_no_vectors_says_so(world: list[Passage]) -> None:
    words = MemoryRetriever(world, "bm25")
    with pytest.raises(RetrievalError) as caught:
        await words.rerank("boats", world, 3)
    assert caught.value.error_code == "RERANK_UNAVAILABLE"
    with pytest.raises(RetrievalError) as caught:
        await MemoryRetriever(world, "dense", Counting()).rerank("boats", [Passage("zz", "other")], 3)
    assert caught.value.error_code == "UNKNOWN_PASSAGE"
    with pytest.raises(UsageError) as used:
        MemoryRetriever(world, "dense", Counting(), rerank=-1)
    assert used.value.error_code == "BAD_RERANK"


class Foreign:
    """A third party's retriever: it searches, and that is all."""

    corpus_id = "foreign"

    def __init__(self, passages: list[Passage]) -> None:
        self._inner = MemoryRetriever(passages)

    async def search(self, query: str, k: int) -> list[Passage]:
        return await self._inner.search(query, k)


async def test_any_retriever_is_ranked_again_and_embeds_a_passage_once() -> None:
    encoder = Counting()
    retriever = RerankedRetriever(Foreign(MANY), encoder, 100)
    assert isinstance(retriever, Reranking)
    assert retriever.corpus_id != "foreign"
    first = await retriever.search("painter in town3", 10)
    expected = await MemoryRetriever(MANY, "bm25", Counting(), rerank=100).search("painter in town3", 10)
    assert [p.id for p in first] == [p.id for p in expected]
    encoder.calls.clear()
    await retriever.search("painter in town4", 10)
    assert [len(texts) for texts in encoder.calls] in ([1], [len(encoder.calls[0]), 1])  # the new passages, the prompt
    await retriever.aclose()


def test_the_setting_ranks_again_over_every_corpus(tmp_path: Path) -> None:
    from jade_graph.assembly import open_named
    from jade_graph.settings.fields import Settings

    build_corpus(MANY, "many", tmp_path, "hash:64")
    plain = open_named(Settings(data_dir=str(tmp_path)), "many")
    again: Any = open_named(Settings(data_dir=str(tmp_path), rerank=20), "many")
    assert again.reranked == 20
    assert again.corpus_id != plain.corpus_id
    (shown,) = [r for r in again.explain("painter in town3", 5) if r.rank == 1]
    assert shown.first_rank is not None


def test_one_prompt_cut_to_what_the_encoder_reads() -> None:
    assert listwise.prompt("why?", ["A\nb c", "d"]) == (
        "Given a question and documents found for it, find the documents that answer the question:\n"
        "Documents:\n[1] A b c\n[2] d\nQuery: why?"
    )
    encoder = Counting()
    long = ["short one", *[" ".join(f"w{j}" for j in range(200))] * 9]
    cut = listwise.prompt("why not?", long, encoder)
    assert cut.count("[") == encoder.prompt_documents
    assert encoder.count_tokens([cut])[0] <= encoder.prompt_tokens
    assert "[1] short one\n" in cut
    assert cut.endswith("Query: why not?")
    shares = [line.count(" ") for line in cut.splitlines() if line[:3] in ("[2]", "[3]", "[4]")]
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 8


def test_equal_scores_keep_their_order() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 1, 0, 1]]
    assert [i for i, _ in listwise.order(vectors[1], vectors)] == [1, 3, 0, 2]


def test_stored_vectors_of_both_searches(tmp_path: Path) -> None:
    matrix = np.eye(4, dtype=np.float32)
    assert dense.ExactVectors(matrix).at([2, 0]).tolist() == matrix[[2, 0]].tolist()
    with dense.chroma_store(tmp_path, "x") as store:
        store.upsert(["a", "b"], matrix[:2], ["a", "b"], ["", ""])
        found = dense.ChromaVectors(store, {"a": [0, 2], "b": [1]}).at([2, 1])
    assert np.allclose(found, matrix[[0, 1]])
