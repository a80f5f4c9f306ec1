"""The decomposition oracle: through the graph it finds exactly what the arithmetic of retrieval says."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.data import Dataset, load_dataset
from jade_graph.errors import DataError
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.scoring.bounds import aretrieval_bounds
from jade_graph.scoring.oracle import DecompositionOracle, graph_bounds
from jade_graph.types import Ask, Passage, Question, SubQuestion, View

PASSAGES = (
    Passage("a", "The film Silver Road was directed by Ann Lee.", "Silver Road"),
    Passage("b", "Ann Lee was born in Kyoto.", "Ann Lee"),
    Passage("c", "Bo Kent was born in Lyon.", "Bo Kent"),
    *(Passage(f"x{i}", f"The film director of road number {i} was born in a silver house.", "") for i in range(8)),
)
TWO_HOP = Question(
    "q1", "Where was the director of the film Silver Road born?", ("Kyoto",), "2hop", 2, ("a", "b"),
    (SubQuestion("Who directed Silver Road?", "Ann Lee"), SubQuestion("Where was #1 born?", "Kyoto")),
)  # fmt: skip
ONE_HOP = Question("q2", "Where was Bo Kent born?", ("Lyon",), "1hop", 1, ("c",))


async def test_decomposition_finds_what_one_search_does_not() -> None:
    data = Dataset("toy", [TWO_HOP, ONE_HOP], PASSAGES)
    retriever = MemoryRetriever(PASSAGES, mode="bm25")
    out = await graph_bounds(data, retriever, budget=2)
    assert (out["questions"], out["decomposed"]) == (2, 1)
    assert out["oracle"]["support_recall_at_2"] == 100.0
    assert out["single_shot"]["support_recall_at_2"] < 100.0
    assert out == await aretrieval_bounds(data, retriever, budget=2)


async def test_without_decompositions_there_is_no_oracle() -> None:
    out = await graph_bounds(Dataset("toy", [ONE_HOP], PASSAGES), MemoryRetriever(PASSAGES, mode="bm25"))
    assert out["oracle"] is None
    assert out["single_shot"]["support_recall_at_5"] == 100.0


def test_the_oracle_knows_its_questions_and_roles_only() -> None:
    oracle = DecompositionOracle([TWO_HOP])
    view = View("?", "?", "root")
    with pytest.raises(DataError, match="ORACLE_QUESTION"):
        oracle(Ask("PL", view, "other"))
    with pytest.raises(DataError, match="ORACLE_ROLE"):
        oracle(Ask("DS", view, "q1"))


@pytest.mark.parametrize("name", ["musique_train100", "2wiki_train500"])
async def test_real_questions_graph_and_arithmetic_agree(name: str, shared_data: Path) -> None:
    """The whole of a real data set, by BM25 alone: every oracle action is legal, and the figures are the same."""
    data = load_dataset(shared_data / name)
    retriever = MemoryRetriever(data.passages, mode="bm25")
    through_the_graph = await graph_bounds(data, retriever)
    assert through_the_graph == await aretrieval_bounds(data, retriever)
    assert through_the_graph["oracle"]["all_support_at_5"] > 2 * through_the_graph["single_shot"]["all_support_at_5"]


TWICE = Question(
    "q3", "Of which countries was Ann Lee a citizen?", ("Japan",), "2hop", 2, ("b",),
    (SubQuestion("Ann Lee country of citizenship", "Japan"), SubQuestion("Ann Lee country of citizenship", "France")),
)  # fmt: skip


async def test_one_odd_question_does_not_end_the_data_set_s_bounds() -> None:
    """2WikiMultihopQA has triples with two objects: two equal steps, which no decomposition may have."""
    retriever = MemoryRetriever(PASSAGES, mode="bm25")
    alone = await graph_bounds(Dataset("toy", [TWO_HOP, ONE_HOP], PASSAGES), retriever, budget=2)
    out = await graph_bounds(Dataset("toy", [TWO_HOP, TWICE, ONE_HOP], PASSAGES), retriever, budget=2)
    (left,) = out.pop("left_out")
    assert left["id"] == "q3"
    assert "DUPLICATE" in left["reason"]
    assert out | {"left_out": []} == alone
    with pytest.raises(DataError, match="ORACLE_RUN"):
        await graph_bounds(Dataset("toy", [TWICE], PASSAGES), retriever)


async def test_a_question_without_answers_has_a_bound_of_its_passages() -> None:
    bare = Question("q4", "Where was Bo Kent born?", (), "1hop", 1, ("c",))
    out = await graph_bounds(Dataset("toy", [bare], PASSAGES), MemoryRetriever(PASSAGES, mode="bm25"))
    assert (out["questions"], out["left_out"]) == (1, [])
    assert out["single_shot"]["answer_recall_at_5"] is None
