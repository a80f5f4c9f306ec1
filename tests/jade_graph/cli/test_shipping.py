"""The demo's end: promoted when the gate passes, left alone when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones import load_backbone
from jade_graph.cli.shipping import MODEL, ship
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.world import Difficulty
from jade_graph.registry import Registry
from jade_graph.scoring.evaluation import Row, evaluate
from jade_graph.settings.manifest import manifest

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

WORLD = make_world("test", 0, Difficulty(scale=0.2))
QUESTIONS = make_questions(WORLD, 56, seed=0)
WORDS = WordSearch(WORLD.passages)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    async def answered() -> list[Row]:
        graph = JadeGraph(load_backbone("tiny"), retriever=WORDS)
        found = await evaluate(graph, QUESTIONS)
        await graph.aclose()
        return list(found)

    return asyncio.run(answered())


def louder(weights: dict[str, Any]) -> None:
    name = next(name for name in sorted(weights) if "norm" in name)
    weights[name] = weights[name] * 1.05


@pytest.mark.slow
def test_the_end_of_the_demo(registry: Registry, variant: Callable[..., Path], rows: list[Row]) -> None:
    own = Registry(registry.uri, model=MODEL, data_dir=registry.place.data)
    better = [replace(row, f1=1.0, em=1.0) for row in rows]
    told: list[str] = []

    def shipped(after: list[Row]) -> dict[str, Any]:
        return ship(
            registry.place.data,
            variant(f"learned{len(told)}", louder),
            rows,
            after,
            dataset="microworld:test?n=56",
            questions=QUESTIONS[:8],
            retriever=WORDS,
            manifest=manifest(preset="jade"),
            tell=told.append,
        )

    refused = shipped(rows)
    assert refused["promoted"] is False
    assert "switched" not in refused
    assert own.current() == 1
    assert [entry.kind for entry in own.history()] == ["first"]
    for _ in range(2):  # a second demo finds its versions there
        passed = shipped(better)
        assert passed["promoted"]
        assert passed["registered"] == {str(v.number): v.content for v in reversed(own.versions())}
        assert passed["switched"]["version"] == own.get(2).content
        assert passed["rolled_back"]["version"] == own.get(1).content
        assert (passed["failed"], passed["mixed"]) == (0, 0)
        assert set(passed["runs"]) == {own.get(1).content, own.get(2).content}
        assert own.current() == 1
    assert [entry.kind for entry in own.history()] == ["rollback", "promote", "rollback", "promote", "first"]
    assert any(line.startswith("gate on 56 held-out questions: passed") for line in told)
