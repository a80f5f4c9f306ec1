"""Retrieval bounds: hand-worked figures, and the reference figures of the real copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jade_graph.data import Dataset, load_dataset
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.scoring.bounds import aretrieval_bounds, retrieval_bounds, retrieval_figures, sub_queries
from jade_graph.types import Passage, Question, SubQuestion

PASSAGES = {i: Passage(i, f"text of {i} and Ostby" if i == "b" else f"text of {i}") for i in "abcdefgh"}
STEPS = (SubQuestion("who made X?", "Ann"), SubQuestion("where was #1 born?", "Ostby"))
BRIDGE = Question("1", "where was the maker of X born?", ("Ostby",), supporting=("a", "b"), decomposition=STEPS)
YES_NO = Question("2", "are they?", ("Yes",), supporting=("c",))


class Fixed:
    """Ranks as told, by query."""

    corpus_id = "fixed"

    def __init__(self, rankings: dict[str, str]) -> None:
        self.rankings = rankings
        self.asked: list[tuple[str, int]] = []

    async def search(self, query: str, k: int) -> list[Passage]:
        self.asked.append((query, k))
        return [PASSAGES[i] for i in self.rankings[query]][:k]


def fixed() -> Fixed:
    return Fixed(
        {
            "where was the maker of X born?": "cadefgh",
            "who made X?": "acd",
            "where was Ann born?": "cbe",
            "are they?": "hc",
        }
    )


def test_sub_queries_have_the_gold_answers_in_place() -> None:
    assert sub_queries(BRIDGE) == ("who made X?", "where was Ann born?")
    assert sub_queries(YES_NO) == ()


def test_figures_worked_by_hand() -> None:
    retriever = fixed()
    found = retrieval_bounds(Dataset("d", [BRIDGE, YES_NO]), retriever)
    assert (found["questions"], found["decomposed"]) == (2, 1)
    assert found["single_shot"] == {
        "support_recall_at_2": 75.0, "support_recall_at_5": 75.0, "support_recall_at_10": 75.0,
        "support_recall_at_20": 75.0, "all_support_at_5": 50.0, "answer_recall_at_5": 0.0,
    }  # fmt: skip
    # Interleaved a c | (c) b | d e: a and b are the first and third.
    assert found["oracle"] == {
        "support_recall_at_2": 75.0, "support_recall_at_5": 100.0, "support_recall_at_10": 100.0,
        "support_recall_at_20": 100.0, "all_support_at_5": 100.0, "answer_recall_at_5": 100.0,
    }  # fmt: skip
    assert {k for _, k in retriever.asked} == {20}


async def test_the_budget_is_the_same_for_both_sides() -> None:
    ticks: list[tuple[int, int]] = []
    data = Dataset("d", [BRIDGE])
    found = await aretrieval_bounds(data, fixed(), budget=3, progress=lambda done, total: ticks.append((done, total)))
    assert found["oracle"]["support_recall_at_3"] == 100.0
    assert (await aretrieval_bounds(data, fixed(), budget=2))["oracle"]["all_support_at_2"] == 0.0
    assert ticks == [(1, 1)]


def test_what_no_question_defines_is_none() -> None:
    bare = Question("1", "are they?")
    found = retrieval_bounds(Dataset("d", [bare]), fixed())
    assert set(found["single_shot"].values()) == {None}
    assert found["oracle"] is None
    assert retrieval_figures([YES_NO], [[PASSAGES["c"]]])["answer_recall_at_5"] is None


def test_words_alone_on_real_data(shared_data: Path) -> None:
    """BM25 needs no model: what must hold between the figures ties loaders, references and scoring together."""
    data = load_dataset(shared_data / "musique_train100")
    found = retrieval_bounds(data, MemoryRetriever(data.passages))
    for side in ("single_shot", "oracle"):
        recalls = [found[side][f"support_recall_at_{k}"] for k in (2, 5, 10, 20)]
        assert recalls == sorted(recalls)
        assert 0 < found[side]["all_support_at_5"] < found[side]["support_recall_at_5"] < 100
    # The oracle's lead with the fused retriever is 27 points of support and 46 of answers (the slow test below).
    assert found["oracle"]["support_recall_at_5"] - found["single_shot"]["support_recall_at_5"] > 20
    assert found["oracle"]["answer_recall_at_5"] - found["single_shot"]["answer_recall_at_5"] > 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "single", "oracle"),
    [
        ("musique_train100", (44.8, 56.7, 69.3, 78.6, 23.0, 39.0), (83.8, 66.0, 85.0)),
        ("2wiki_train500", (60.0, 68.3, 73.0, 75.7, 36.2, 46.4), (95.7, 89.0, 96.1)),
        ("hotpot_train100", (61.5, 82.0, 90.0, 94.0), None),
    ],
)
def test_reference_figures(
    name: str,
    single: tuple[float, ...],
    oracle: tuple[float, ...] | None,
    shared_data: Path,
    pytestconfig: pytest.Config,
) -> None:
    data = load_dataset(shared_data / name)
    assert pytestconfig.cache is not None
    root = pytestconfig.cache.mkdir("corpora")  # so that only the first run embeds
    build_corpus(data.passages, name, root)
    found: dict[str, Any] = retrieval_bounds(data, open_corpus(name, root))
    names = [*(f"support_recall_at_{k}" for k in (2, 5, 10, 20)), "all_support_at_5", "answer_recall_at_5"]
    for figure, wanted in zip(names, single, strict=False):
        assert found["single_shot"][figure] == pytest.approx(wanted, abs=2.0), figure
    if oracle is None:
        assert found["oracle"] is None
    else:
        for figure, wanted in zip(("support_recall_at_5", *names[4:]), oracle, strict=True):
            assert found["oracle"][figure] == pytest.approx(wanted, abs=2.0), figure
