"""`jade train` and `jade sft`: an export becomes weights, in steps, and refuses what it cannot learn from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from jade_graph.backbones import TINY
from jade_graph.cli import main
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def jade(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*args: str) -> Done:
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err + (captured.out if code else ""))

    return run


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """Eight runs of each of three questions by the bundled model, two for each plan drawn."""
    import asyncio

    from jade_graph.backbones.hf import HFBackbone
    from jade_graph.langchain.runnable import JadeGraph
    from jade_graph.rollouts.collecting import collect
    from jade_graph.runs.export import export_runs
    from jade_graph.settings.manifest import manifest
    from jade_graph.types import Sampling

    world = make_world("train", 3)
    questions = make_questions(world, 7)[:3]
    backbone = HFBackbone.load(TINY, dtype="float32")
    graph = JadeGraph(backbone, retriever=WordSearch(world.passages), sampling=Sampling(temperature=0.6))

    async def runs() -> Any:
        try:
            return await collect(
                graph, questions, rollout_id="r", runs_per_question=8, runs_per_plan=2, explore=0.4,
                sampling={"temperature": 0.6},
            )  # fmt: skip
        finally:
            await graph.aclose()

    folder = tmp_path_factory.mktemp("offline") / "export"
    export_runs(asyncio.run(runs()), folder, manifest(seeds=[0]))
    return folder


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_an_export_becomes_weights_and_a_second_update_goes_on(jade, export):
    done = jade("train", str(export), "--backbone", "tiny", "--out", "one", "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["runs"] == 24
    assert metrics["rows"] > 24
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=0.1)
    start, one = weights(TINY), weights(Path("one"))
    assert one.keys() == start.keys()
    assert any(not torch.equal(one[n].float(), start[n].float()) for n in one)
    again = jade("train", str(export), "--backbone", "tiny", "--out", "same", "--json")
    assert json.loads(again.out)["metrics"]["policy_loss"] == metrics["policy_loss"]
    assert all(torch.equal(one[n], t) for n, t in weights(Path("same")).items())

    second = jade(
        "train", str(export), "--backbone", "tiny", "--checkpoint", "one/checkpoint", "--out", "two", "--json"
    )
    # the weights have moved since these runs: by a little, which the ratio corrects
    assert second.code == 0, second.err
    assert json.loads(second.out)["metrics"]["update"] == 2


def test_runs_of_other_weights_are_refused(jade, export, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    tensors = weights(other)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 0.2
    from safetensors.torch import save_file

    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    done = jade("train", str(export), "--backbone", str(other), "--out", "x", "--json")
    assert done.code != 0
    assert "STALE_VERSION" in done.err
    done = jade("train", str(export), "--backbone", str(other), "--any-version", "--out", "x", "--json")
    assert "LOGPROBS_DIFFER" in done.err
    assert "TRAIN_OUT" in jade("train", str(export), "--backbone", str(other), "--out", str(other)).err
    assert "UNKNOWN_PRESET" in jade("train", str(export), "--preset", "jad", "--out", "x").err
    assert "EXPORT_NOT_FOUND" in jade("train", "nowhere", "--out", "x").err


def test_good_actions_and_demonstrations_are_imitated(jade, export):
    done = jade("sft", str(export), "--minimum", "-9", "--batch-rows", "64", "--out", "warm", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["examples"] > 10
    assert (Path("warm") / "jade.json").is_file()
    shown = jade("sft", "microworld", "--count", "12", "--batch-rows", "12", "--out", "shown", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["metrics"]["examples"] >= 12
    assert "SFT_EMPTY" in jade("sft", str(export), "--minimum", "9", "--out", "x").err
