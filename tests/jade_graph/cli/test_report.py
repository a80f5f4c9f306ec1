"""`jade report compression`: learning runs and recorded ones, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph import RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.types import Ask, Question
from jade_graph.workflow.engine import Engine

pytestmark = pytest.mark.usefixtures("declared")
SPEC = {"method": "scma", "alpha": 0.3, "scorer": "joint", "reference": "group", "kappa": 4.5, "degenerate": 0.05}


def policy(ask: Ask) -> str:
    text = str(ask.view.memory.get("text") or "")
    told = {
        "SG": f"<seg>{text[:3]}</seg><seg>{text[3:]}</seg>",
        "SC": "<score>5</score><score>2</score>",
        "SR": f"<think>{'why ' * len(ask.view.question)}</think><answer>Ann</answer>",
    }
    return told[ask.role]


@pytest.fixture
def recorded() -> list[str]:
    with RunStore(Path(".jade/runs.db")) as store:
        engine = Engine(ScriptedBackbone(policy), preset="search-r1", compress="joint", recorder=store)
        asked = [Question(f"q{i}", "Who?" * (i + 1), answers=("Ann" if i < 3 else "Bob",)) for i in range(4)]
        made = [engine.run(q, run_id=f"judged{i}").id for i, q in enumerate(asked)]
        Engine(ScriptedBackbone(policy), preset="search-r1", recorder=store).run("Who?", run_id="served")
    return made


def learning(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    evaluation = {"f1": 0.5, "f1_ci95": [0.4, 0.6], "text_tokens": 31.5}
    last = {
        "texts": 10, "valid": 0.9, "pieces": 3.0, "weight": 3.5, "degenerate": None, "why": {"NOT_LOSSLESS": 1},
        "histogram": {"1": 5, "2": 0, "3": 0, "4": 0, "5": 15},
    }  # fmt: skip
    state = {
        "facts": {"settings": settings},
        "history": [{"compression": last}],
        "evaluations": {"10": evaluation, "0": evaluation | {"text_tokens": 80.0}},
    }
    (folder / "improve.json").write_text(json.dumps(state))
    return folder


def test_a_learning_run_is_length_against_accuracy_and_a_histogram(jade: Any, tmp_path: Path) -> None:
    folder = learning(tmp_path / "short", compress=SPEC)
    (told,) = jade("report", "compression", str(folder), "--json").json["learning"]
    assert [(p["iteration"], p["tokens"]) for p in told["points"]] == [(0, 80.0), (10, 31.5)]
    assert told["compress"] == SPEC
    assert told["last"]["histogram"]["5"] == 15
    text = jade("report", "compression", str(folder)).out
    for part in ("31.5", "0.500 ±0.100", "25%", "75%", "90%", "NOT_LOSSLESS 1"):
        assert part in text, part


def test_recorded_runs_are_figures_and_bands_of_length(jade: Any, recorded: list[str]) -> None:
    (told,) = jade("report", "compression", recorded[0], "--json").json["recorded"]
    assert told["figures"]["histogram"] == {"1": 0, "2": 1, "3": 0, "4": 0, "5": 1}
    assert [band["f1"] for band in told["bands"]] == [1.0]
    assert "0.000" in jade("report", "compression", recorded[3]).out


def test_what_is_no_report(jade: Any, recorded: list[str], tmp_path: Path) -> None:
    def code(*names: str) -> str:
        return str(jade("report", "compression", *names, "--json").json["error"]["code"])

    assert code("served") == "REPORT_RUNS"
    assert code("nothing") == "RUN_NOT_FOUND"
    assert code(str(learning(tmp_path / "plain"))) == "REPORT_FOLDER"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "improve.json").write_text("{")
    assert code(str(broken)) == "REPORT_FOLDER"


def test_where_nothing_is_recorded_none_is_made(jade: Any) -> None:
    assert jade("report", "compression", "nope", "--json").json["error"]["code"] == "RUN_NOT_FOUND"
    assert not Path(".jade").exists()
