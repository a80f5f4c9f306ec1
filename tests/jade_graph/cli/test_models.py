"""`jade models`: what can be added, and what is said where nothing is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones import named
from jade_graph.testing.models import make_random_model


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(name: str, data: Path, *, tell: Any) -> Path:
        for line in ("fetching", "checking", "converting"):
            tell(line)
        folder = named.folder_of(name, data)
        make_random_model(folder, width=16, heads=2)
        (folder / named.ABOUT).write_text("{}")
        return folder

    monkeypatch.setattr(named, "add", add)


def test_models_are_added_listed_shown_and_removed(jade: Any, added: None) -> None:
    before = jade("models", "list", "--json").json
    assert [m["name"] for m in before["bundled"]] == ["tiny", "tiny-hasty", "tiny-ask"]
    assert [(m["name"], m["added"]) for m in before["named"]] == [("smol", False), ("smollm2", False)]
    told = jade("models", "add", "smollm2", "--json").json
    assert (told["fresh"], told["added"], told["licence"]) == (True, True, "Apache-2.0")
    after = {m["name"]: m for m in jade("models", "list", "--json").json["named"]}
    assert after["smollm2"]["added"]
    assert (after["smol"]["base"], after["smol"]["added"]) == ("smollm2", False)
    assert jade("models", "show", "smollm2", "--json").json["sha256"] == named.NAMED["smollm2"].sha256
    removed = jade("models", "remove", "smollm2", "--yes", "--json").json
    assert removed["bytes"] > 1000
    assert not Path(told["folder"]).exists()


def test_what_is_not_there_says_how_to_get_it(jade: Any) -> None:
    told = jade("models", "remove", "smollm2", "--yes", "--json").json["error"]
    assert (told["code"], told["hint"].split(" (")[0]) == ("MODEL_NOT_ADDED", "jade models add smollm2")
    assert jade("models", "show", "smolm2", "--json").json["error"]["hint"] == "did you mean 'smollm2'?"
    asked = jade("ask", "Who?", "--backbone", "smollm2", "--json").json["error"]
    assert asked["code"] == "MODEL_NOT_ADDED"
