"""One odd question never ends a data set's command: every one counts it, names it, and does the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

POLICY = """
ACTIONS = {"PL": "<workflow>R,AG</workflow>", "AG": "<answer>Ann Lee</answer>"}

def policy(ask):
    return ACTIONS[ask.role]
"""
FAST = ("--set", "encoder=hash:64", "--set", "retrieval=bm25", "--json")
PASSAGES = [{"id": "p", "title": "Film", "text": "The film was made by Ann Lee."}]
GOOD = [{"id": f"g{i}", "question": f"Who made film {i}?", "answers": ["Ann Lee"], "supporting": ["p"]} for i in (1, 2)]
ODD: list[dict[str, Any]] = [
    {"id": "blank", "question": " ", "answers": ["x"]},
    {"id": "number", "question": 7, "answers": ["x"]},
    {"id": "null", "question": None, "answers": ["x"]},
    {"id": "list", "question": ["Who?"], "answers": ["x"]},
    {"id": "g1", "question": "Who else?", "answers": ["x"]},
    {"id": "long", "question": "who " * 30_000, "answers": ["x"]},
    {"id": "i" * 300, "question": "Who?", "answers": ["x"]},
    {"question": "Who has no id?", "answers": ["x"]},
    {"id": "slip", "question": "Who?", "answer": "x"},
    {"id": "steps", "question": "Who?", "answers": ["x"], "decomposition": ["a", "b"]},
    {"id": "answers", "question": "Who?", "answers": {"a": 1}},
]
NAMES = {"blank", "number", "null", "list", "g1", "long", "i" * 200 + "..", "record 9", "slip", "steps", "answers"}


@pytest.fixture
def film(monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set with two questions, and eleven odd ones between them."""
    Path("film").mkdir()
    Path("film/corpus.jsonl").write_text("\n".join(map(json.dumps, PASSAGES)))
    Path("film/questions.jsonl").write_text("\n".join(map(json.dumps, [GOOD[0], *ODD, GOOD[1]])))
    Path("odd_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(".")
    return "film"


def named(done: Any) -> set[str]:
    assert done.code == 0, done.err
    assert "left out" in done.err
    return {one["id"] for one in done.json["left_out"] if one["reason"]}


def test_no_odd_question_ends_a_data_set_s_command(jade: Any, film: str, declared: None) -> None:
    scripted = ("--backbone", "scripted:odd_policy")
    assert named(jade("bounds", film, *FAST)) == NAMES
    evaluated = jade("eval", film, *scripted, *FAST)
    assert named(evaluated) == NAMES
    assert (evaluated.json["overall"]["n"], evaluated.json["overall"]["f1"]) == (2, 1.0)
    rolled = jade("rollout", film, *scripted, "--id", "r", *FAST)
    assert (named(rolled), rolled.json["runs"]) == (NAMES, 2)
    exported = jade("export", "r", "--out", "out", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["counts"]["runs"] == 2
    assert {one["id"] for one in exported.json["questions_left_out"]} == NAMES
    assert exported.json["runs_left_out"] == []
    assert json.loads(Path("out/manifest.json").read_text())["questions_left_out"]
    shown = jade("demonstrations", film, "--out", "demos.jsonl", *FAST)
    assert shown.code == 0, shown.err
    assert {one["id"] for one in shown.json["odd_questions"]} == NAMES
    assert shown.json["demonstrations"] >= 2


def test_of_several_data_sets_each_names_its_own(jade: Any, film: str) -> None:
    Path("other").mkdir()
    Path("other/corpus.jsonl").write_text("\n".join(map(json.dumps, PASSAGES)))
    Path("other/questions.jsonl").write_text("\n".join(map(json.dumps, [*GOOD, {**GOOD[0], "question": "Again?"}])))
    done = jade("eval", film, "other", "--backbone", "scripted:odd_policy", *FAST)
    assert done.code == 0, done.err
    assert [one for one in done.json["left_out"] if one["dataset"] == "other"] == [
        {"dataset": "other", "id": "g1", "reason": "an earlier question has this id"}
    ]
