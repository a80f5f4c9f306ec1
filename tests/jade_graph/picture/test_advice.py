"""What to try after a failed run: every code has a sentence, and what it names exists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jade_graph import plugins
from jade_graph.cli.app import BUILTINS
from jade_graph.picture.advice import advised, next_step
from jade_graph.picture.details import details
from jade_graph.settings.config import KEYS
from jade_graph.testing.runs import Act, make_run
from jade_graph.types import Counters, Run, TraceNode

ERRORS = Path(__file__).parents[3] / "docs" / "reference" / "errors.md"


def failed(code: str, acts: Sequence[Act] = ()) -> Run:
    return replace(make_run("r", acts, None)[0], status="failed", error=code, error_message="because")


def test_every_code_that_a_run_ends_with_has_its_own_sentence() -> None:
    section = ERRORS.read_text("utf-8").partition("\n## Failed runs")[2].partition("\n## ")[0]
    codes = set(re.findall(r"^### (\w+)$", section, re.MULTILINE))
    assert "LIMIT_DEADLINE" in codes
    assert advised() == codes


def test_other_codes_lead_to_their_explanation() -> None:
    said = next_step(failed("BACKBONE_UNAVAILABLE"))
    assert said is not None
    assert said.startswith("jade errors BACKBONE_UNAVAILABLE ")
    assert next_step(make_run("r", [], 1.0)[0]) is None


@pytest.mark.parametrize("code", sorted(advised()))
def test_what_is_named_exists(code: str) -> None:
    said = next_step(failed(code)) or ""
    assert said.endswith(".")
    for key in re.findall(r"--set ([\w.]+)=", said):
        assert key in KEYS, said
    for name in re.findall(r"\bjade ([a-z]+)", said):
        assert name in {*BUILTINS, *plugins.names("jade.commands")}, said


def test_the_page_says_it_and_says_that_a_model_is_too_weak() -> None:
    acts = [
        Act("AG", (1,), (2,), (-1.0,), fields={"valid": k == 0, "violation": "NO_TAG" if k else None}) for k in range(4)
    ]
    run = replace(failed("LIMIT_TOKENS", acts), trace=(TraceNode("0", "Q?"),), counters=Counters(calls=4))
    found = details(run, "q0")
    assert [section["title"] for section in found["sections"]] == [
        "Why it failed",
        "What to try",
        "Too weak for its roles",
    ]
    assert "3 of 4 actions were illegal" in found["sections"][2]["text"]
    assert ["mostly illegal", "bad"] in found["badges"]
