"""M-ASK learns: slow, from the bundled start, on the questions that one search answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from jade_graph.backbones.folders import BUNDLED
from jade_graph.microworld import parse
from jade_graph.microworld.search import WordSearch
from jade_training.compare.arms import turn_arms
from jade_training.improve.improver import Data, Improver
from jade_training.improve.settings import ImproveSettings


def data(spec: str) -> Data:
    world, questions, name = parse(spec)
    return Data(f"microworld:{name}", questions, WordSearch(world.passages))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["turn", "return_to_go"])
def test_turn_loops_learn_to_read(tmp_path: Path, one_thread: None, mode: str) -> None:
    settings = ImproveSettings(iterations=6, questions=12, call_cost=0.0, evaluate_every=3)
    preset = turn_arms()[f"m-ask {mode}"].preset
    sets = data("train?n=300&kinds=1hop"), data("validation?n=80&kinds=1hop")
    learned = asyncio.run(Improver(tmp_path / "run", BUNDLED["tiny-ask"], *sets, settings, preset=preset).run())
    assert learned.stopped is None
    scores = {i: e["f1"] for i, e in learned.evaluations.items()}
    assert max(scores.values()) > scores[0] + 0.05
    # The same runs under another credit have other rewards: the mode of the preset is what was trained on.
    assert replace(settings, credit="final").ppo_of(preset).credit == "final"
