"""A model that was never taught a method's roles still plays them; a warning names the one that was."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.backbones.folders import BUNDLED, taught
from jade_graph.cli.taught import roles_of_loop
from jade_graph.microworld import make_questions, make_world

QUESTION = make_questions(make_world("test", 0), 1, seed=0, kinds={"1hop": 1.0})[0].question


def test_what_bundled_models_were_taught() -> None:
    roles = {name: taught(name) for name in BUNDLED}
    assert roles["tiny"] == roles["tiny-hasty"] == {"PL", "QDS", "QDP", "QR", "DS", "AG", "AS"}
    assert roles["tiny-ask"] == roles["tiny"] | {"KP", "KS", "KE", "KU", "KA", "SR"}
    assert taught("/no/folder") == frozenset()
    assert roles_of_loop("m-ask") == ["KP", "KA", "KS", "KE", "KU"]
    assert roles_of_loop("search-r1") == ["SR"]
    assert roles_of_loop("jade") == []


@pytest.mark.parametrize("preset", ["m-ask", "search-r1"])
def test_an_untaught_model_runs_and_a_taught_one_is_named(
    jade: Any, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JADE_ENCODER", "hash")
    asked = ("ask", QUESTION, "--preset", preset, "--corpus", "microworld", "--json")
    done = jade(*asked, "--backbone", "tiny")
    assert done.json["status"] in ("answered", "failed")
    assert any(action["violation"] for action in done.json["actions"])
    assert "--backbone tiny-ask" in done.err
    done = jade(*asked, "--backbone", "tiny-ask")
    assert done.code == 0
    assert "tiny-ask" not in done.err
