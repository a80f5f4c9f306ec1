"""Word search: ranking, ties, and what is saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.bm25 import Bm25, Bm25Params, top
from jade_graph.retrieval.words import tokenize

TEXTS = ["The cat sat on the mat", "Dogs and cats are running", "A boat on the river", "the of and"]


def test_words_are_stemmed_and_stop_words_dropped() -> None:
    assert tokenize(["The Cats are running"]) == [["cat", "run"]]
    assert tokenize(["the of", ""]) == [[], []]


def test_score_is_lucenes_formula() -> None:
    index = Bm25.build(TEXTS)
    lengths = [len(row) for row in tokenize(TEXTS)]
    idf = math.log(1 + (len(TEXTS) - 2 + 0.5) / (2 + 0.5))
    norm = 1 / (1 + 1.5 * (1 - 0.75 + 0.75 * lengths[0] / (sum(lengths) / len(lengths))))
    assert index.scores("cat")[0] == pytest.approx(idf * norm, rel=1e-4)


def test_finds_what_shares_a_word_and_nothing_else() -> None:
    index = Bm25.build(TEXTS)
    assert {i for i, _ in index.search("a running cat", 10)} == {0, 1}
    assert index.search("zebra", 10) == []
    assert index.search("the of", 10) == []
    assert index.search("", 10) == []
    assert len(index.search("cat boat", 1)) == 1


def test_equal_scores_keep_the_order_of_the_passages() -> None:
    index = Bm25.build(["red boat"] * 5)
    assert [i for i, _ in index.search("boat", 3)] == [0, 1, 2]


@pytest.mark.parametrize("texts", [TEXTS, ["", ""], ["the"], ["x"]])
def test_saved_and_loaded_index_scores_alike_without_pickle(texts: list[str], tmp_path: Path) -> None:
    index = Bm25.build(texts, Bm25Params(k1=1.2, b=0.5))
    index.save(tmp_path)
    again = Bm25.load(tmp_path)
    assert again.params == index.params
    assert len(again) == len(texts)
    for query in ("cat river", "nothing"):
        assert np.array_equal(again.scores(query), index.scores(query))
    assert {p.suffix for p in tmp_path.iterdir()} <= {".npy", ".json"}
    for path in tmp_path.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = Bm25.build(TEXTS * 50)
    index.save(tmp_path)
    Bm25.load(tmp_path).search("cat", 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b'{"size": 3, "empty": false, "k9": 1}'])
def test_a_damaged_index_is_named(damage: bytes, tmp_path: Path) -> None:
    Bm25.build(TEXTS).save(tmp_path)
    (tmp_path / "bm25.json").write_bytes(damage)
    with pytest.raises(RetrievalError) as caught:
        Bm25.load(tmp_path)
    assert caught.value.error_code == "CORPUS_BROKEN"


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(-1, 35))
def test_top_is_a_stable_sort_cut_off(scores: list[int], k: int) -> None:
    wanted = sorted(range(len(scores)), key=lambda i: -scores[i])[: max(k, 0)]
    assert top(np.asarray(scores, dtype=np.float32), k) == wanted
