"""jade bench rerank at its quick size, over small data sets: every method is measured, and nothing is made twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import UsageError
from jade_graph.testing.encoders import make_random_encoder
from jade_training.bench.rerank import SETS, run

TOPICS = [f"topic{i}" for i in range(24)]


def _write(folder: Path, topics: list[str]) -> None:
    passages = [{"id": t, "title": t, "text": f"{t} is a good one"} for t in topics]
    questions = [
        {"id": f"q{t}", "question": f"what is {t} ?", "answers": ["good"], "supporting": [t]} for t in topics[:6]
    ]
    folder.mkdir(parents=True)
    for name, rows in (("corpus", passages), ("questions", questions)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_every_method_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(SETS):
        _write(tmp_path / "data" / name, TOPICS[8 * i : 8 * i + 8])
    start = make_random_encoder(tmp_path / "start", [*TOPICS, "is", "a", "good", "one", "what", "?"])
    given: dict[str, Any] = {
        "data": str(tmp_path / "data"), "encoder": f"hf:{start}", "out": str(tmp_path / "out"), "quick": True,
    }  # fmt: skip
    seen = run(**given)
    methods = ("bm25", "dense", "rrf", "e2rank", "rrf_e2rank", "trained_e2rank", "trained_rrf_e2rank", "cross")
    for method in methods:
        assert 0 <= seen[f"musique_{method}_ndcg10"] <= 1
        assert 0 <= seen[f"musique_{method}_recall5"] <= 1
        assert seen[f"musique_{method}_ms"] > 0
    assert seen["musique_bm25_recall5"] == 1.0  # each question names its passage
    assert seen["musique_questions"] == 6
    low, high = seen["musique_trained_rrf_e2rank_recall5_over_rrf_low"], seen["musique_cross_recall5_over_rrf_high"]
    assert low <= seen["musique_trained_rrf_e2rank_recall5_over_rrf"]
    assert high >= seen["musique_cross_recall5_over_rrf"]

    def again(*args: Any, **more: Any) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr("jade_training.encoders.training.train_encoder", again)
    assert run(**given) == seen
    with pytest.raises(UsageError) as caught:
        run(**{**given, "tests": "none"})
    assert caught.value.error_code == "BENCH_OPTION"
