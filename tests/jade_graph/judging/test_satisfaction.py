"""Satisfaction: what comes from usefulness is predicted by it, and not from relevance."""

from __future__ import annotations

import numpy as np
import pytest

from jade_graph.errors import DataError, UsageError
from jade_graph.judging.satisfaction import STATISTICS, predict, rows_of
from jade_graph.runs.judgements import KEY
from jade_graph.testing.runs import Act, make_run
from jade_graph.types import Message


def run_of(i: int, labels, scores, content: bool, judged: bool = True):
    """A run that read its passages; their labels and the retriever's scores are given."""
    texts = [f"the text of passage number {i} {k} is here" for k in range(len(labels))]
    documents = [
        {"id": f"{i}-{k}", "text": text, "score": float(s)}
        for k, (text, s) in enumerate(zip(texts, scores, strict=True))
    ]
    acts = [
        Act("R", (), (), (), fields={"parsed": {"queries": ["q"], "documents": documents}}),
        Act("AG", (1,), (2,), (0.0,), fields={"parsed": "x", "prompt_messages": (Message("user", " ".join(texts)),)}),
    ]
    run, _ = make_run(f"r{i}", acts, 1.0, question_id=f"q{i // 2}")
    run.answer = "right" if content else "wrong"
    rows = [{"id": d["id"], "label": v, "level": 0, "votes": []} for d, v in zip(documents, labels, strict=True)]
    told = {KEY: {"searches": [{"seq": 0, "labels": rows}]}} if judged else {}
    run.metadata = {"answers": ["right"], "feedback": {"rating": 1.0 if content else -1.0}, **told}
    return run


def simulated(n: int = 160, *, by: str):
    rng = np.random.default_rng(1)
    runs = []
    for i in range(n):
        labels, scores = rng.integers(0, 5, 3) / 4, rng.random(3)
        cause = labels.mean() if by == "usefulness" else scores.mean()
        content = rng.random() < 1 / (1 + np.exp(-12 * (cause - 0.5)))
        runs.append(run_of(i, labels.tolist(), scores, bool(content)))
    return runs


def test_auc_rises_where_satisfaction_comes_from_usefulness():
    runs = simulated(by="usefulness")
    rows, left_out = rows_of(runs)
    assert (len(rows), left_out) == (160, {})
    assert rows_of(runs, target="rating")[0] == rows
    found = predict(rows, resamples=30)
    assert found["auc_usefulness"] > 0.75 > found["auc_relevance"]
    assert found["auc_gain"] == pytest.approx(found["auc_usefulness"] - found["auc_relevance"])
    assert found["auc_gain_ci95"][0] > 0
    assert set(found["coefficients"]) == set(STATISTICS)
    low, high = found["coefficients"]["mean"]["ci95"]
    assert low <= found["coefficients"]["mean"]["value"] <= high


@pytest.mark.slow
def test_usefulness_gains_nothing_where_relevance_is_the_cause():
    found = predict(rows_of(simulated(by="relevance"))[0], resamples=60)
    assert found["auc_relevance"] > 0.7 > found["auc_usefulness"]
    assert found["auc_gain_ci95"][1] < 0


def test_statistics_are_of_what_was_read_in_order():
    [row], _ = rows_of([run_of(0, [1.0, 0.25, 0.5], [3.0, 2.0, 1.0], True)])
    assert row.usefulness == (1.0, pytest.approx(1.75 / 3), 1.75, 0.5)
    assert row.relevance == (3.0, 2.0, 6.0, 1.0)
    assert row.content


def test_runs_that_lack_something_are_left_out_and_counted():
    no_target, unlabelled = run_of(3, [1.0], [1.0], True), run_of(4, [None], [1.0], True)
    no_target.metadata = {**no_target.metadata, "answers": []}
    unread = run_of(5, [1.0], [1.0], True)
    unread.transitions = unread.transitions[:1]
    rows, left_out = rows_of([no_target, run_of(2, [1.0], [1.0], True, judged=False), unlabelled, unread])
    assert rows == []
    assert left_out == {"no target": 1, "not judged": 1, "nothing read": 1, "without a label": 1}
    with pytest.raises(UsageError) as caught:
        rows_of([], target="smile")  # type: ignore[arg-type]
    assert caught.value.error_code == "JUDGE_TARGET"


@pytest.mark.parametrize("n", [0, 10, 40])
def test_too_few_runs_predict_nothing(n):
    rows, _ = rows_of([run_of(i, [1.0], [1.0], True) for i in range(n)])  # 40, but all of one kind
    with pytest.raises(DataError) as caught:
        predict(rows)
    assert caught.value.error_code == "JUDGE_FEW"
