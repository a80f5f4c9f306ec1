"""jade train-encoder and jade encoders, from labels to a corpus that is searched with what was learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jade_graph.cli import main
from jade_graph.data.labels import Graded, Labelled, write_labels
from jade_graph.retrieval.corpus import build_corpus
from jade_graph.testing.encoders import make_random_encoder
from jade_graph.types import Passage

TOPICS = [f"topic{i}" for i in range(60)]
PASSAGES = [Passage(f"p{i}", f"the good {topic}") for i, topic in enumerate(TOPICS)]


def _labels(path: Path, topics: list[str]) -> str:
    rows = [
        Labelled(
            f"about {topic}",
            (
                Graded(f"p{TOPICS.index(topic)}", f"the good {topic}", 1.0),
                Graded(f"p{(TOPICS.index(topic) + 1) % 60}", f"the good topic{(TOPICS.index(topic) + 1) % 60}", 0.0),
            ),
            {"kind": "test"},
        )
        for topic in topics
    ]
    write_labels(path, rows)
    return str(path)


@pytest.fixture
def jade(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: None) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("jade_graph.cli.classes._described", lambda key: ("", key))  # reads installed packages

    def run(*args: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main([*args, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.slow
def test_from_labels_to_a_corpus(jade: Any, tmp_path: Path, empty_database: Path) -> None:
    root = tmp_path / ".jade"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    build_corpus(PASSAGES, "topics", root, "hash:8")
    start = make_random_encoder(tmp_path / "start", [*TOPICS, "the", "good", "about"])
    train, held = _labels(tmp_path / "train.jsonl", TOPICS[:20]), _labels(tmp_path / "held.jsonl", TOPICS)
    given = ("train-encoder", train, "--encoder", f"hf:{start}", "--steps", "2", "--batch", "4", "--out", "out")
    code, told = jade(*given, "--register", "--set", "seed=5")
    assert code == 0
    assert told["figures"]["queries"] == 20
    assert told["version"]["name"] == "jade-encoder"
    code, told = jade("encoders", "promote", "--corpus", "topics", "--on", held, "--mode", "dense", "--minimum", "10")
    assert code == 0
    assert (told["left_out"], told["swapped"], told["verdict"]["n"]) == (20, True, 40)
    code, listed = jade("encoders", "list")
    assert [(e["number"], e["corpora"]) for e in listed["encoders"]] == [(1, ["topics"])]
    code, found = jade("search", "topics", "about topic30", "--mode", "dense", "--rerank", "10")
    assert code == 0
    assert found["rerank"] == 10
    assert {r["first_rank"] for r in found["results"]} <= set(range(1, 11))
    code, told = jade("encoders", "reembed", "topics", "--encoder", "hash:16")
    assert (code, told["encoder"], told["swapped"]) == (0, "hash-16-v1", True)


def test_what_is_no_label_is_told_before_anything_is_trained(jade: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"query": "q", "documents": [{"id": "a", "text": "x", "label": 2}]}\n')
    code, told = jade("train-encoder", "bad.jsonl", "--encoder", "hash:8", "--out", "out")
    assert (code, told["error"]["code"]) == (4, "BAD_ENCODER")
    make_random_encoder(tmp_path / "start", TOPICS)
    code, told = jade("train-encoder", "bad.jsonl", "--encoder", "hf:start", "--out", "out")
    assert (code, told["error"]["code"]) == (3, "LABELS_FILE")
    assert not (tmp_path / "out").exists()
