"""The demo's learning: it learns, a finished run is read back, and one of other settings is begun again."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.microworld.world import Difficulty
from jade_training.cli import demo


def test_it_learns_goes_on_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Difficulty(scale=0.1)
    monkeypatch.setattr(demo, "make_world", lambda split, seed: make(split, seed, small))
    monkeypatch.setattr(demo, "TRAIN_QUESTIONS", 60)
    monkeypatch.setattr(demo, "DEVELOPMENT_QUESTIONS", 7)
    told: list[tuple[int, int, str]] = []
    first = demo.learn(tmp_path / "run", iterations=1, tell=lambda *what: told.append(what))
    assert first["iterations"] == 1
    assert first["runs"] == 48 * 4
    assert told[-1][:2] == (100, 100)
    again = demo.learn(tmp_path / "run", iterations=1)
    assert again["history"] == first["history"]
    other = demo.learn(tmp_path / "run", iterations=1, seed=1)
    assert other["history"] != first["history"]


make = demo.make_world
