"""A comparison of two arms, small: complete, resumable, and the command that prints it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones import TINY
from jade_graph.cli import main
from jade_training.compare import jobs
from jade_training.compare.arms import chosen
from jade_training.compare.jobs import jobs_of
from jade_training.compare.run import CompareSettings
from jade_training.learner.logits import FEW_THREADS

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


@pytest.mark.slow
def test_arms_learn_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(self: Any) -> None:
        raise AssertionError("learning was left to the process that reports")

    monkeypatch.setattr("jade_training.improve.improver.Improver.run", refused)
    out = tmp_path / "compared"
    few = [*ARGUMENTS, "--questions", "2", "--arms", "start;static R,AG;joint", "--out", str(out)]
    told = call([*few, "--jobs", "2"], capsys)
    assert set(told["arms"]) == {"none", "static", "joint"}
    assert {p.name for p in (out / "arms").iterdir()} == {"joint-0", "static-r-ag-0"}


def test_every_learning_run_is_a_job() -> None:
    arms = chosen("start;decoupled;joint;static R,AG", quick=False)
    settings = CompareSettings(seeds=(3, 4), costs=(0.0, 0.5), call_costs=(0.06, 0.06), once=("decoupled",))
    assert [job.name for job in jobs_of(arms, settings)] == [
        "decoupled-3",
        "static-r-ag-3",
        "joint-3",
        "static-r-ag-4",
        "joint-4",
        "joint-cost-0-3",
        "joint-cost-0_5-3",
        "joint-call-cost-0_06-3",
    ]
    several = jobs_of(arms, replace(settings, costs=(), sweep_seeds=2))
    assert [job.name for job in several][-2:] == ["joint-call-cost-0_06-3", "joint-call-cost-0_06-4"]
    assert [job.name for job in several][:5] == [
        "decoupled-3", "static-r-ag-3", "joint-3", "static-r-ag-4", "joint-4"
    ]  # fmt: skip


def test_how_many_at_once_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 6)
    monkeypatch.setattr(jobs, "memory_gib", lambda: 64.0)
    assert jobs.usual(TINY) == 6
    monkeypatch.setattr(jobs, "memory_gib", lambda: 9.0)
    assert jobs.usual(TINY) == 2
    monkeypatch.setattr(jobs, "memory_gib", lambda: None)
    assert jobs.usual(TINY) == 1
    monkeypatch.setattr(jobs, "memory_gib", lambda: 64.0)
    large = tmp_path / "large"
    large.mkdir()
    with (large / "model.safetensors").open("wb") as file:
        file.truncate(4 * FEW_THREADS)
    assert jobs.usual(large) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert jobs.usual(TINY) == 1
