"""Judged texts as people see them: numbers beside colours, texts as texts, in a terminal and on a page."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.picture import page
from jade_graph.picture.details import details
from jade_graph.picture.terminal import run_tree
from jade_graph.types import Ask, Run
from jade_graph.workflow.engine import Engine

pytestmark = pytest.mark.usefixtures("declared")


def policy(ask: Ask) -> str:
    told = {
        "SG": "<seg>[bold]Ann[/bold]</seg><seg> <script>x</script></seg><seg> rained.</seg>",
        "SC": "<score>5</score><score>1</score><score>3</score>",
        "SR": "<think>[bold]Ann[/bold] <script>x</script> rained.</think><answer>Ann</answer>",
    }
    return told[ask.role]


@pytest.fixture
def run() -> Run:
    return Engine(ScriptedBackbone(policy), preset="search-r1", compress="joint").run("Who?")


def shown(run: Run) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(run_tree(run))
    return console.export_text()


def test_a_terminal_shows_every_piece_behind_its_weight(run: Run) -> None:
    text = shown(run)
    assert "[5][bold]Ann[/bold] [1]<script>x</script> [3]rained." in text


def test_the_details_of_a_box_have_pieces_weights_and_tokens(run: Run) -> None:
    (section,) = [s for s in details(run, "a0")["sections"] if s["kind"] == "pieces"]
    assert [(piece, weight) for piece, weight, _ in section["pieces"]] == [
        ("[bold]Ann[/bold]", 5.0),
        (" <script>x</script>", 1.0),
        (" rained.", 3.0),
    ]
    assert "weighed by a role in training" in section["note"]
    judge = details(run, "a1")
    assert ["judges action 0; in training only", "note"] in judge["badges"]
    assert not [s for s in judge["sections"] if s["kind"] == "pieces"]


def test_a_page_holds_the_pieces_as_data_and_not_as_markup(run: Run) -> None:
    made = page(run)
    assert "What of it counts" in made
    assert "<script>x</script>" not in made


def test_what_could_not_be_weighed_says_why(run: Run) -> None:
    told: Any = {"how": "joint", "texts": [dict(run.metadata["compression"]["texts"][0])]}
    told["texts"][0] |= {"pieces": ["abc"], "lengths": [1], "weights": None, "valid": False, "why": "NOT_LOSSLESS"}
    bad = replace(run, metadata={"compression": told})
    assert "not weighed: NOT_LOSSLESS" in shown(bad)
    (section,) = [s for s in details(bad, "a0")["sections"] if s["kind"] == "pieces"]
    assert section["pieces"] == [["abc", None, 1]]
    assert "NOT_LOSSLESS: it costs nothing" in section["note"]
