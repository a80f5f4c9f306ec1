"""Evaluation: scores per question, unscored is not zero, pairs, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jade_graph.engine import JadeGraph
from jade_graph.errors import DataError, UsageError
from jade_graph.evaluation import compare, evaluate, load_rows, plan_shares, report, save_rows, summarize
from jade_graph.types import Limits, Question

QUESTIONS = [
    Question("a", "Who made X?", ("Ann Lee",), "1hop", supporting=("p0", "p9")),
    Question("b", "Is it?", ("YES",), "yesno"),
    Question("c", "Who?", (), "1hop"),
]


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
