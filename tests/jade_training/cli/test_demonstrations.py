"""`jade demonstrations`: from questions to a file that `jade sft` learns from, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.cli import main
from jade_training.supervised import files

pytestmark = pytest.mark.usefixtures("one_thread")

PASSAGES = [
    {"id": str(i), "title": f"Book {i}", "text": f"Book {i} is a novel by Writer Number {i}."} for i in range(12)
]
QUESTIONS = [
    {"id": f"q{i}", "question": f"Who wrote Book {i}?", "answers": [f"Writer Number {i}"], "supporting": [str(i)]}
    for i in range(12)
]


@pytest.fixture
def jade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JADE_ENCODER", "hash")

    def run(*args: str) -> Any:
        capsys.readouterr()
        code = main([*args, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def write(folder: Path, questions: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, PASSAGES)))
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))


def test_questions_become_demonstrations_and_these_a_model(jade: Any, tmp_path: Path, folder: Path) -> None:
    write(tmp_path / "books", QUESTIONS)
    code, told = jade("demonstrations", "books", "--out", "demos.jsonl", "--set", "k=3")
    assert code == 0
    shown, about = files.read(tmp_path / "demos.jsonl")
    assert told["by_role"] == files.by_role(shown)
    assert told["demonstrations"] == len(shown) >= 24
    assert (about["profile"], about["k"], about["lessons"]) == ("brief", 3, 12)
    assert {s.action for s in shown if s.role == "PL"} == {"<workflow>R,AG</workflow>"}
    code, told = jade(
        "sft", "demos.jsonl", "--backbone", str(folder), "--out", "taught", "--lora", "4", "--steps", "2",
        "--micro-tokens", "1024", "--held-out", "0.3",
    )  # fmt: skip
    assert code == 0
    assert told["metrics"]["steps"] == 2
    assert "held_out AG" in told["metrics"]
    assert json.loads((tmp_path / "taught" / "jade.json").read_text())["profile"] == "brief"


def test_questions_without_answers_teach_nothing(jade: Any, tmp_path: Path) -> None:
    write(tmp_path / "books", [{**q, "answers": []} for q in QUESTIONS])
    code, told = jade("demonstrations", "books", "--out", "demos.jsonl")
    assert (code, told["error"]["code"]) == (3, "DEMONSTRATIONS_NONE")
    assert not (tmp_path / "demos.jsonl").exists()
    code, told = jade("demonstrations", "books", "--out", "demos.jsonl", "--profile", "breif")
    assert told["error"]["code"] == "BACKBONE_PROFILE"
