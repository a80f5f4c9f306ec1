"""Evaluation: scores per question, unscored is not zero, pairs, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import DataError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.scoring.evaluation import (
    compare,
    evaluate,
    plan_shares,
    report,
    require_comparable,
    summarize,
)
from jade_graph.scoring.keeping import load_rows, save_rows
from jade_graph.scoring.retrieved import retrieved_passages
from jade_graph.types import Limits, Passage, Question

QUESTIONS = [
    Question("a", "Who made X?", ("Ann Lee",), "1hop", supporting=("p0", "p9")),
    Question("b", "Is it?", ("YES",), "yesno"),
    Question("c", "Who?", (), "1hop"),
]


def split(ask: Any) -> str:
    return "<workflow>QDP</workflow>" if ask.view.level == "root" else "<workflow>R,AG</workflow>"


def answers(ask: Any) -> str:
    return {"Who made X?": "<answer>Lee</answer>", "Is it?": "<answer>yes</answer>"}.get(ask.view.question, "?")


async def test_rows_are_in_order_and_scored(scripted: Any, passages: Any) -> None:
    seen: list[str] = []
    graph = JadeGraph(scripted(AG=answers), retriever=passages)
    rows = await evaluate(graph, QUESTIONS, progress=lambda run: seen.append(run.question_id))
    assert [r.question_id for r in rows] == ["a", "b", "c"]
    assert sorted(seen) == ["a", "b", "c"]
    assert rows[0].f1 == pytest.approx(2 / 3)
    assert (rows[0].em, rows[0].support_recall, rows[0].calls, rows[0].retrievals) == (0.0, 0.5, 2, 1)
    assert (rows[1].f1, rows[1].em) == (1.0, 1.0)
    assert (rows[2].f1, rows[2].em) == (None, None)
    assert rows[2].illegal_rate == 0.5
    assert rows[1].support_recall is None  # no gold passage


async def test_a_decomposed_run_shows_the_best_of_each_search(scripted: Any, passages: Any) -> None:
    """Not the first search's whole list: at the budget k, a decomposition has room for every sub-question."""

    class Searched(type(passages)):  # type: ignore[misc]
        async def search(self, query: str, k: int) -> list[Passage]:
            return [Passage(f"{query}{i}", f"rank {i} for {query}") for i in range(k)]

    question = Question("a", "Which?", ("rank 0 for right?",), supporting=("left?0", "right?0"))
    graph = JadeGraph(scripted(PL=split), retriever=Searched(), k=3)
    (row,) = await evaluate(graph, [question])
    assert (row.plan, row.retrievals) == ("QDP", 2)
    assert (row.support_recall, row.answer_recall) == (1.0, 1.0)


async def test_searches_stand_in_the_order_of_the_trace(scripted: Any, passages: Any) -> None:
    run = await JadeGraph(scripted(PL=split), retriever=passages).arun("Which?")
    rows = [t for t in run.transitions if t.role == "R"]
    assert sorted(t.trace_node for t in rows) == ["0.1", "0.2"]
    for t in rows:
        t.parsed = {"documents": [{"id": f"{t.trace_node}-{i}", "score": 0.0} for i in range(3)]}
    wanted = ["0.1-0", "0.2-0", "0.1-1", "0.2-1"]
    assert [p.id for p in retrieved_passages(run, 4)] == wanted
    run.transitions = run.transitions[::-1]  # whichever ended first
    for seq, t in enumerate(run.transitions):
        t.seq = seq
    assert [p.id for p in retrieved_passages(run, 4)] == wanted
    rows[0].error = "LIMIT_RETRIEVALS"
    assert len({p.id[:3] for p in retrieved_passages(run, 4)}) == 1


async def test_a_run_that_retrieved_nothing_brought_nothing(scripted: Any, passages: Any) -> None:
    closed = JadeGraph(scripted(PL="<workflow>AG</workflow>", AG=answers), retriever=passages)
    rows = await evaluate(closed, QUESTIONS)
    assert {r.retrievals for r in rows} == {0}
    assert [r.support_recall for r in rows] == [0.0, None, None]
    assert [r.answer_recall for r in rows] == [0.0, None, None]  # yes/no stands in no passage; no gold
    assert summarize(rows)["support_recall"] == 0.0


async def test_unscored_questions_are_left_out_of_the_mean(scripted: Any, passages: Any) -> None:
    rows = await evaluate(JadeGraph(scripted(AG=answers), retriever=passages), QUESTIONS)
    overall = summarize(rows)
    assert (overall["n"], overall["scored"]) == (3, 2)
    assert overall["f1"] == pytest.approx((2 / 3 + 1) / 2)
    low, high = overall["ci95"]["f1"]
    assert low <= overall["f1"] <= high
    only_unscored = summarize(rows[2:])
    assert only_unscored["f1"] is None
    assert "f1" not in only_unscored["ci95"]
    assert plan_shares(rows) == {"R,AG": 1.0}


async def test_a_failed_run_counts(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, limits=Limits(tokens=1))
    (row,) = await evaluate(graph, QUESTIONS[:1])
    assert (row.status, row.error, row.f1, row.failed_rate) == ("failed", "LIMIT_TOKENS", 0.0, 1.0)


async def test_report_has_the_documented_shape(scripted: Any, passages: Any) -> None:
    rows = await evaluate(JadeGraph(scripted(AG=answers), retriever=passages), QUESTIONS)
    out = report(rows, {"seed": 0})
    assert set(out) == {"overall", "by_type", "manifest"}
    assert set(out["by_type"]) == {"1hop", "yesno"}
    assert {"f1", "em", "calls", "retrievals", "illegal_rate", "ci95"} <= set(out["overall"])


async def test_comparison_is_paired(scripted: Any, passages: Any) -> None:
    ours = await evaluate(JadeGraph(scripted(AG=answers), retriever=passages), QUESTIONS)
    theirs = await evaluate(JadeGraph(scripted(AG="<answer>no</answer>"), retriever=passages), QUESTIONS)
    out = compare(ours, theirs)
    assert out["f1"]["difference"] == pytest.approx((2 / 3 + 1) / 2)
    assert compare(ours, ours)["f1"]["difference"] == 0
    with pytest.raises(UsageError, match="EVAL_NOT_PAIRED"):
        compare(ours, theirs[:2])


MANIFEST = {
    "schema": 1, "preset": "jade", "dataset_id": "d", "corpus_id": "c", "encoder": "e", "k": 5, "seed": 0,
    "sampling": {"temperature": 0.0, "top_p": 1.0}, "constrained": False, "limits": {"depth": 2}, "limits_set": {},
    "backbone": "tiny", "backbone_version": "v1", "graph_hash": "g", "time": "now",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_id": "x"}, {"corpus_id": "x"}, {"encoder": None}, {"k": 3}, {"limit": 5}, {"seed": 1},
        {"sampling": {"temperature": 1.0, "top_p": 1.0}}, {"constrained": True}, {"limits": {"depth": 1}},
        {"limits_set": {"rounds": 3}}, {"preset": "other", "limits_set": {"rounds": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_evaluations_that_differ_in_what_matters_are_not_compared(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"MANIFEST_DIFFERS.*{list(change)[-1]}"):
        require_comparable(MANIFEST, MANIFEST | change)


def test_methods_and_models_may_differ() -> None:
    require_comparable(MANIFEST, MANIFEST | {"backbone": "b", "backbone_version": "v2", "graph_hash": "h", "time": ""})
    require_comparable(MANIFEST, MANIFEST | {"preset": "vanilla-rag", "limits": {"depth": 0}})


async def test_files_round_trip(scripted: Any, passages: Any, tmp_path: Path) -> None:
    rows = await evaluate(JadeGraph(scripted(), retriever=passages), QUESTIONS)
    save_rows(tmp_path / "out" / "e.jsonl", rows, {"seed": 3})
    assert load_rows(tmp_path / "out" / "e.jsonl") == (rows, {"seed": 3})
    (tmp_path / "bad").write_text("{}")
    with pytest.raises(DataError, match="EVAL_FILE"):
        load_rows(tmp_path / "bad")


async def test_questions_need_ids(scripted: Any) -> None:
    graph = JadeGraph(scripted())
    with pytest.raises(DataError, match="DATASET_EMPTY"):
        await evaluate(graph, [])
    with pytest.raises(DataError, match="DATASET_IDS"):
        await evaluate(graph, [QUESTIONS[0], QUESTIONS[0]])
