"""The end of the demo: real pages, read by `smol` where it is there, and a word on how to add it where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from jade_graph.backbones import named
from jade_graph.cli import demo_reading
from jade_graph.cli.command import Cli
from jade_graph.testing.models import make_random_model

OPTIONS = ["data_dir=data", "encoder=hash", "limits.depth=0"]


def test_without_the_model_it_says_how_to_add_it(capsys: pytest.CaptureFixture[str], jade: Any) -> None:
    assert demo_reading.read_pages(Cli(overrides=OPTIONS)) is None
    assert "jade models add smol" in capsys.readouterr().err


def test_a_question_about_the_pages_is_answered_over_them(jade: Any) -> None:
    cli = Cli(overrides=OPTIONS)
    about = named.NAMED[named.SMOL]
    assert isinstance(about, named.Taught)
    folder = make_random_model(named.folder_of(named.SMOL, cli.settings.data_path), width=16, heads=2)
    facts = {"profile": about.profile, "adapter": named._hash(about.adapter / "adapter_model.safetensors")}
    (folder / "jade.json").write_text(json.dumps(facts))
    run = demo_reading.read_pages(cli)
    assert run is not None
    assert (run.question, run.status) == (demo_reading.QUESTION, "answered")
    assert demo_reading.GOLD in run.documents[0].text
    console = Console(width=80, record=True)
    for item in demo_reading.shown(run):
        console.print(item)
    text = console.export_text()
    assert demo_reading.QUESTION in text
    assert demo_reading.told(run)["answer"] == run.answer


def test_the_question_is_answered_by_one_page_alone() -> None:
    pages = {path.name: path.read_text("utf-8") for path in demo_reading.PAGES.iterdir()}
    assert [name for name, text in pages.items() if demo_reading.GOLD in text] == ["bell-rock.md"]
    assert len(pages) == 4
