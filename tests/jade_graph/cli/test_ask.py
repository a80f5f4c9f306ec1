"""`jade ask -`: questions from standard input, a line each, with one model; which model answers where none is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones import named
from jade_graph.settings import fields
from jade_graph.settings.config import load_config

POLICY = """
def policy(ask):
    if "broken" in ask.view.question:
        raise RuntimeError("no answer")
    return {"PL": "<workflow>R,AG</workflow>", "AG": f"<answer>{ask.view.question[:9]}</answer>"}[ask.role]
"""


@pytest.fixture
def asked(jade: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`asked(LINES, OPTION..)`: `jade ask -` with a scripted model over two pages."""
    Path("ask_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(".")
    Path("docs").mkdir()
    Path("docs/a.md").write_text("# Alpha\n\nAlpha is the first letter.\n")
    assert jade("index", "docs", "--corpus", "docs", "--set", "encoder=hash").code == 0

    def run(lines: str, *options: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return jade(
            "ask", "-", "--corpus", "docs", "--backbone", "scripted:ask_policy", "--set", "encoder=hash", *options
        )

    return run


def test_each_line_is_a_question_and_its_answer_a_line(asked: Any) -> None:
    done = asked("Question one?\n\n  Question two?  \n", "--brief")
    assert (done.code, done.out.split("\n")[:2]) == (0, ["Question", "Question"])
    done = asked("First of them?\nSecond one?\n", "--json")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [t["question"] for t in told] == ["First of them?", "Second one?"]
    assert [t["answer"] for t in told] == ["First of", "Second on"]
    assert len({t["run_id"] for t in told}) == 2


def test_a_question_that_fails_keeps_none_of_the_others_from_being_answered(asked: Any) -> None:
    done = asked("broken one?\nSecond one?\n", "--json")
    first, second = map(json.loads, done.out.splitlines())
    assert (first["status"], second["status"]) == ("failed", "answered")
    assert done.code == 1
    done = asked("Question one?\n", "--json", "--plan", "NOPE")
    assert json.loads(done.out)["error"]["code"]
    assert done.code == 1


def test_no_line_is_no_answer(asked: Any) -> None:
    done = asked("\n", "--json")
    assert (done.code, done.out) == (0, "")


def test_the_default_model_is_one_that_reads_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fields.SMOL == named.SMOL
    assert load_config().settings.backbone == "tiny"
    own = load_config(overrides=["corpus=mine"])
    assert (own.settings.backbone, own.origin("backbone")) == ("smol", "default")
    assert load_config(overrides=["corpus=mine", "backbone=tiny"]).settings.backbone == "tiny"
    assert load_config(overrides=["corpus=microworld"]).settings.backbone == "tiny"


def test_a_data_set_that_is_not_of_microworld_is_answered_by_the_default_that_reads_it(jade: Any) -> None:
    Path("qa.jsonl").write_text(json.dumps({"id": "1", "question": "Who?", "answers": ["x"]}))
    Path("corpus.jsonl").write_text(json.dumps({"id": "p", "text": "x did.", "title": "X"}))
    for command in ("eval", "rollout"):
        told = jade(command, "qa.jsonl", "--json", "--set", "encoder=hash").json["error"]
        assert told["code"] == "MODEL_NOT_ADDED", command
        assert "jade models add smol" in told["hint"]
