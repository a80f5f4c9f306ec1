"""The in-process retriever: modes, explanation, caching, concurrency, corpus ids; and its conformance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jade_graph.errors import DataError, JadeError, RetrievalError, UsageError
from jade_graph.retrieval import local
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.encoder import HashingEncoder, Vectors
from jade_graph.retrieval.identity import content_id, corpus_id, row_id
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.testing.retrievers import RetrieverConformance
from jade_graph.types import Passage


class TestConformance(RetrieverConformance):
    queries = ("painter born in Norwick", "city with bridges", "Ann Lee", "boats on the river")

    @pytest.fixture(params=["bm25", "dense", "hybrid"])
    def retriever(self, request: pytest.FixtureRequest, world: list[Passage], encoder: Any) -> MemoryRetriever:
        return MemoryRetriever(world, request.param, encoder)


class SlowFirst(HashingEncoder):
    """Holds its first batch of queries until it is let go."""

    def __init__(self) -> None:
        super().__init__(64)
        self.calls: list[list[str]] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        if query:
            self.calls.append(list(texts))
            self.entered.set()
            assert self.open.wait(20)
        return super().encode(texts, query=query)


@pytest.fixture
def hybrid(world: list[Passage], encoder: Any) -> MemoryRetriever:
    return MemoryRetriever(world, "hybrid", encoder)


def test_finds_the_right_passage(hybrid: MemoryRetriever) -> None:
    assert hybrid.search_sync("Where was the painter Cy Dunn born?", 1)[0].id == "p2"
    assert asyncio.run(hybrid.search("bridges of Rusk", 1))[0].id == "c4"


def test_fewer_results_are_a_prefix_of_more(hybrid: MemoryRetriever) -> None:
    many = hybrid.search_sync("painter of boats in Pell", 12)
    for k in range(1, 12):
        assert hybrid.search_sync("painter of boats in Pell", k) == many[:k]


def test_explanation_agrees_with_the_search_and_the_formula(hybrid: MemoryRetriever) -> None:
    query = "painter of boats in Pell"
    told = hybrid.explain(query, 8)
    assert [r.passage for r in told] == hybrid.search_sync(query, 8)
    assert [r.rank for r in told] == list(range(1, 9))
    for ranked in told:
        parts = [1 / (60 + rank) for rank in (ranked.bm25_rank, ranked.dense_rank) if rank is not None]
        assert parts
        assert ranked.passage.score == pytest.approx(sum(parts))
        assert (ranked.bm25_rank is None) == (ranked.bm25_score is None)
    assert hybrid.explain(" ", 3) == []


def test_scores_of_the_single_modes(world: list[Passage], encoder: Any) -> None:
    dense, words = MemoryRetriever(world, "dense", encoder), MemoryRetriever(world, "bm25")
    text = str(world[3])
    assert dense.search_sync(text, 1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert dense.explain(text, 1)[0].bm25_rank is None
    best = words.search_sync("Di Vance", 1)[0]
    assert best.score == pytest.approx(float(Bm25.build([str(p) for p in world]).scores("Di Vance").max()))
    assert words.search_sync("zebra", 5) == []


def test_queries_are_embedded_once_and_the_cache_is_bounded(
    world: list[Passage], encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "CACHED_QUERIES", 2)
    retriever = MemoryRetriever(world, "dense", encoder)
    encoder.seen.clear()
    for query in ("a", "a", "b", "a", "c", "a", "b"):
        retriever.search_sync(query, 2)
    assert encoder.seen == ["a", "b", "c", "b"]


async def test_concurrent_searches_are_embedded_together(world: list[Passage]) -> None:
    encoder = SlowFirst()
    retriever = MemoryRetriever(world, "dense", encoder)
    first = asyncio.create_task(retriever.search("q0", 3))
    await asyncio.to_thread(encoder.entered.wait, 20)
    rest = [asyncio.create_task(retriever.search(f"q{i % 5}", 3)) for i in range(1, 21)]
    await asyncio.sleep(0)
    encoder.open.set()
    await asyncio.gather(first, *rest)
    assert encoder.calls == [["q0"], ["q1", "q2", "q3", "q4"]]


def test_an_encoder_that_fails_fails_the_search_and_the_next_one_works(world: list[Passage], encoder: Any) -> None:
    retriever = MemoryRetriever(world, "hybrid", encoder)
    encode = encoder.encode
    encoder.encode = lambda texts, query=False: np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(RetrievalError) as caught:
        retriever.search_sync("x", 2)
    assert caught.value.error_code == "BAD_ENCODER"
    encoder.encode = encode
    assert len(retriever.search_sync("x", 2)) == 2


def test_get(hybrid: MemoryRetriever, world: list[Passage]) -> None:
    assert hybrid.get(["c1", "p0", "c1"]) == [world[7], world[0], world[7]]
    with pytest.raises(RetrievalError) as caught:
        hybrid.get(["p0", "nobody"])
    assert caught.value.error_code == "UNKNOWN_PASSAGE"
    assert len(hybrid) == len(world) == len(hybrid.passages)


def test_repeated_and_empty_passages_are_left_out() -> None:
    passages = [Passage("a", "one"), Passage("b", " "), Passage("a", "one", score=3), Passage("c", "", "Title")]
    assert [p.id for p in MemoryRetriever(passages).passages] == ["a", "c"]


@pytest.mark.parametrize(
    ("passages", "options", "kind", "code"),
    [
        ([], {}, RetrievalError, "CORPUS_EMPTY"),
        ([Passage("a", "\n")], {}, RetrievalError, "CORPUS_EMPTY"),
        ([Passage("", "x")], {}, DataError, "PASSAGE_ID"),
        ([Passage("a", "x"), Passage("a", "y")], {}, DataError, "PASSAGE_ID"),
        ([Passage("a", "x")], {"mode": "fuzzy"}, UsageError, "BAD_RETRIEVAL_MODE"),
        ([Passage("a", "x")], {"mode": "dense", "encoder": "hsh"}, UsageError, "UNKNOWN_ENCODER"),
    ],
)
def test_bad_input_is_named(passages: list[Passage], options: Any, kind: type[JadeError], code: str) -> None:
    with pytest.raises(kind) as caught:
        MemoryRetriever(passages, **options)
    assert caught.value.error_code == code


def test_vectors_without_an_encoder_are_a_named_failure(world: list[Passage], encoder: Any) -> None:
    from jade_graph.retrieval.dense import ExactVectors

    vectors = ExactVectors(encoder.encode([str(p) for p in world]))
    retriever = LocalRetriever(world, corpus_id="x", mode="dense", bm25=None, vectors=vectors, encoder=None)
    with pytest.raises(RetrievalError) as caught:
        retriever.search_sync("a", 1)
    assert caught.value.error_code == "ENCODER_MISSING"


def test_corpus_id_names_content_encoder_mode_and_chunking(world: list[Passage], encoder: Any) -> None:
    base = MemoryRetriever(world, "hybrid", encoder).corpus_id
    assert base == MemoryRetriever(list(reversed(world)), "hybrid", encoder).corpus_id
    changed = [Passage("p0", "another text", "Ann Lee"), *world[1:]]
    renamed = [Passage("q0", world[0].text, world[0].title), *world[1:]]
    content = content_id(world)
    others = [
        MemoryRetriever(changed, "hybrid", encoder).corpus_id,
        MemoryRetriever(renamed, "hybrid", encoder).corpus_id,
        MemoryRetriever(world[1:], "hybrid", encoder).corpus_id,
        MemoryRetriever(world, "dense", encoder).corpus_id,
        MemoryRetriever(world, "bm25").corpus_id,
        MemoryRetriever(world, "hybrid", "hash:32").corpus_id,
        corpus_id(content, encoder=encoder.id, chunking={"size": 100, "overlap": 0}),
        corpus_id(content, encoder=encoder.id, chunking={"size": 101, "overlap": 0}),
    ]
    assert len({base, *others}) == len(others) + 1
    assert base == corpus_id(content, encoder=encoder.id)
    assert corpus_id(content, encoder="x", mode="bm25") == corpus_id(content, encoder="y", mode="bm25")


def test_metadata_and_score_are_no_part_of_the_content() -> None:
    plain, other = Passage("a", "x", "t"), Passage("a", "x", "t", score=4, metadata={"page": 1})
    assert content_id([plain]) == content_id([other])
    assert row_id(Passage("a", "bc", "d")) == row_id(Passage("z", "bc", "d"))
    assert row_id(Passage("a", "bc", "d")) != row_id(Passage("a", "c", "db"))


async def test_closing(hybrid: MemoryRetriever) -> None:
    await hybrid.search("a painter", 2)
    await hybrid.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await hybrid.search("a painter", 2)
