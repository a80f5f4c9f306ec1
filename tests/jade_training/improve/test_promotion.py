"""A promotion while a graph serves and learning goes on: neither sees more of the other than the promoted version."""

from __future__ import annotations

import asyncio
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones import TINY, load_backbone
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.world import Difficulty
from jade_graph.types import Run
from jade_graph.versions import VersionedBackbone
from jade_training.improve.improver import Data, Improver
from jade_training.improve.settings import ImproveSettings
from jade_training.learner.ppo import PPOConfig
from tests.waiting import until

SETTINGS = ImproveSettings(
    iterations=1, questions=4, runs_per_question=2, evaluate_every=1, ppo=PPOConfig(estimator="rloo", minibatches=2)
)


class Shelf:
    """Versions in folders; a folder whose name begins with "v" is a script that answers its name."""

    def __init__(self, *folders: Path) -> None:
        self.folders, self.champion = list(folders), 1

    def current(self, alias: str = "champion") -> int:
        return self.champion

    def fetch(self, reference: str | int) -> tuple[Any, Path]:
        return reference, self.folders[int(reference) - 1]

    def promote(self, folder: Path) -> None:
        self.folders.append(folder)
        self.champion = len(self.folders)


def scripted(described: Any, folder: Path) -> ScriptedBackbone:
    name = f"v{described}"

    def policy(ask: Any) -> str:
        return "<workflow>R,AG</workflow>" if ask.role == "PL" else f"<answer>{name}</answer>"

    return ScriptedBackbone(policy, version=name, latency_s=0.002)


def weights(described: Any, folder: Path) -> Any:
    return load_backbone(str(folder))


def data(split: Any, n: int) -> Data:
    world = make_world(split, 0, Difficulty(scale=0.1))
    return Data(f"microworld:{split}?n={n}", make_questions(world, n), WordSearch(world.passages))


async def _serve_while(graph: JadeGraph, questions: Any, work: Any, runs: list[Run]) -> None:
    """Answer questions until the work is done, with three callers."""
    working = asyncio.ensure_future(work)
    waiting = cycle(questions)

    async def caller() -> None:
        while not working.done():
            runs.append(await graph.arun(next(waiting)))

    await asyncio.gather(*(caller() for _ in range(3)))
    await working


def _require_whole(runs: list[Run]) -> None:
    for run in runs:
        assert run.status == "answered", (run.error, run.error_message)
        assert {t.backbone_version for t in run.transitions if t.backbone_version} == {run.backbone_version}


@pytest.mark.parametrize("load", [scripted, pytest.param(weights, marks=pytest.mark.slow)])
async def test_a_graph_that_serves_is_promoted_to_what_is_learned_beside_it(tmp_path: Path, load: Any) -> None:
    train, dev = data("train", 6), data("validation", 5)
    shelf = Shelf(TINY)
    backbone = VersionedBackbone.open(shelf, load, poll_s=0.01)
    graph = JadeGraph(backbone, retriever=dev.retriever)
    first = backbone.version
    runs: list[Run] = []

    async def learn_and_promote() -> None:
        await until(lambda: len(runs) > 3)
        shelf.promote(TINY)  # another promotion comes while learning goes on
        improved = await Improver(tmp_path / "run", TINY, train, dev, SETTINGS).run()
        assert improved.iterations == 1
        await until(lambda: backbone.status().active == 2)
        shelf.promote(improved.last)
        await until(lambda: backbone.status().active == 3)

    await _serve_while(graph, dev.questions, learn_and_promote(), runs)
    runs += [await graph.arun(question) for question in dev.questions]
    _require_whole(runs)
    assert runs[0].backbone_version == first
    assert {run.backbone_version for run in runs[-len(dev.questions) :]} == {backbone.version}
    assert backbone.version != first
    await graph.aclose()
