"""Vectors in Chroma come back as they were written; approximate search agrees with exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jade_graph.errors import RetrievalError
from jade_graph.retrieval import dense
from jade_graph.retrieval.dense import ChromaVectors, ExactVectors, chroma_store, open_store
from jade_graph.retrieval.encoder import Vectors, normalise


def points(n: int, dim: int = 16, seed: int = 0) -> Vectors:
    return normalise(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def fill(folder: Path, vectors: Vectors, encoder: str = "e") -> list[str]:
    rows = [f"r{i}" for i in range(len(vectors))]
    with chroma_store(folder, encoder) as store:
        store.upsert(rows, vectors, [f"text {i}" for i in rows], [""] * len(rows))
    return rows


def test_exact_search_is_cosine_in_order() -> None:
    vectors, queries = points(50), points(3, seed=1)
    for query, hits in zip(queries, ExactVectors(vectors).search(queries, 7), strict=True):
        wanted = np.argsort(-(vectors @ query), kind="stable")[:7]
        assert [i for i, _ in hits] == wanted.tolist()
        assert [score for _, score in hits] == pytest.approx((vectors @ query)[wanted].tolist(), abs=1e-6)


def test_vectors_come_back_as_written_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "MAX_BATCH", 7)
    vectors = points(20)
    rows = fill(tmp_path, vectors)
    with chroma_store(tmp_path, "e") as store:
        assert store.rows() == set(rows)
        asked = [rows[i] for i in (5, 19, 0, 5)]
        assert np.array_equal(store.vectors(asked), vectors[[5, 19, 0, 5]])
        store.delete(rows[:9])
        assert store.rows() == set(rows[9:])
        with pytest.raises(RetrievalError, match="1 of 2 vectors are missing"):
            store.vectors([rows[0], rows[10]])


def test_more_rows_than_chroma_takes_at_once(tmp_path: Path) -> None:
    vectors = points(5500, dim=2)
    with chroma_store(tmp_path, "e") as store:
        store.upsert([f"r{i}" for i in range(5500)], vectors, ["x"] * 5500, [""] * 5500)
        assert len(store.rows()) == 5500


def test_approximate_search_agrees_with_exact(tmp_path: Path) -> None:
    vectors, queries = points(400), points(20, seed=2)
    rows = fill(tmp_path, vectors)
    with chroma_store(tmp_path, "e") as store:
        found = ChromaVectors(store, {row: [i] for i, row in enumerate(rows)}).search(queries, 10)
    exact = ExactVectors(vectors).search(queries, 10)
    shared = [len({i for i, _ in a} & {i for i, _ in b}) for a, b in zip(found, exact, strict=True)]
    assert sum(shared) >= 0.99 * 200
    assert found[0][0][1] == pytest.approx(exact[0][0][1], abs=1e-4)


def test_rows_stand_for_all_passages_with_their_content(tmp_path: Path) -> None:
    vectors = points(3)
    rows = fill(tmp_path, vectors)
    with chroma_store(tmp_path, "e") as store:
        searcher = ChromaVectors(store, {rows[0]: [0, 3], rows[1]: [1]})
        hits = searcher.search(vectors[:1], 5)[0]
        assert [i for i, _ in hits][:2] == [0, 3]
        assert {i for i, _ in hits} == {0, 1, 3}  # rows that the corpus no longer has are passed over
        assert len(searcher.search(vectors[:1], 1)[0]) == 1


def test_nothing_to_search_gives_nothing(tmp_path: Path) -> None:
    with chroma_store(tmp_path, "e") as store:
        assert store.nearest(points(2), 3) == [[], []]


def test_each_encoder_has_a_collection_of_its_own(tmp_path: Path) -> None:
    fill(tmp_path, points(4), "one")
    fill(tmp_path, points(6, dim=8), "two")
    with chroma_store(tmp_path, "one") as store:
        assert len(store.rows()) == 4
        store.drop_other_collections()
        assert len(store.rows()) == 4
    with chroma_store(tmp_path, "two") as store:
        assert store.rows() == set()


def test_chroma_never_embeds_a_text(tmp_path: Path) -> None:
    import chromadb
    from chromadb.config import Settings

    fill(tmp_path, points(3))
    with chroma_store(tmp_path, "e") as store, pytest.raises(RetrievalError) as caught:
        store._collection.query(query_texts=["boat"], n_results=1)
    assert caught.value.error_code == "CORPUS_VECTORS_ONLY"
    # The collection says which encoder it belongs to, so a stranger's default is refused rather than mixed in.
    with chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False)) as client:
        name = client.list_collections()[0].name
        config = client.get_collection(name, embedding_function=None).configuration
        assert config["embedding_function"].get_config() == {"encoder": "e"}


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError) as caught:
        open_store(tmp_path / "chroma", "e", create=False)
    assert caught.value.error_code == "CORPUS_BROKEN"
    assert not (tmp_path / "chroma").exists()
    fill(tmp_path, points(2), "one")
    store = open_store(tmp_path, "two", create=False)
    with pytest.raises(RetrievalError) as caught:
        store.rows()
    assert caught.value.error_code == "CORPUS_BROKEN"
    store.close()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    fill(tmp_path, points(2))
    (tmp_path / "chroma.sqlite3").write_bytes(b"garbage" * 1000)
    with pytest.raises(RetrievalError) as caught, chroma_store(tmp_path, "e") as store:
        store.rows()
    assert caught.value.error_code == "CORPUS_BROKEN"
