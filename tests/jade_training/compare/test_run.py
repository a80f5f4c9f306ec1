"""A comparison of two arms, small: complete, resumable, and the command that prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.cli import main

ARGUMENTS = [
    "compare", "--arms", "start;joint", "--iterations", "1", "--seeds", "1", "--no-sweep",
    "--train", "microworld:train?n=60&scale=0.1", "--dev", "microworld:validation?n=7&scale=0.1",
    "--test", "microworld:test?n=14&scale=0.1", "--json",
]  # fmt: skip


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    code = main(arguments)
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def test_two_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compared"
    told = call([*ARGUMENTS, "--out", str(out)], capsys)
    assert list(told["arms"]) == ["none", "joint"]
    assert 0 <= told["arms"]["joint"]["ci95"][0] <= told["arms"]["joint"]["f1"] <= told["arms"]["joint"]["ci95"][1]
    assert told["ceiling"] > 0.9
    assert list(told["differences"]) == ["start"]
    assert told["manifest"]["compare"]["test"].startswith("microworld:test")
    assert set(told["ds"]) == {"frozen"}
    assert (out / "report.md").read_text().startswith("# Joint learning, compared")
    assert {p.name for p in out.glob("*.png")} == {"curves.png", "front.png"}
    learned = (out / "results" / "joint-0.json").stat().st_mtime_ns
    again = call([*ARGUMENTS, "--out", str(out)], capsys)
    assert again["arms"] == told["arms"]
    assert (out / "results" / "joint-0.json").stat().st_mtime_ns == learned
