"""What a pretrained model can do, measured through the engine, for its model card.

Invariant: every figure comes from runs of the stock engine over worlds that share no entity with training; the settings
that it depends on stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.microworld.lexicon import Split
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.questions import KINDS, make_questions
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.table import PLANS, PlanTable, plan_table
from jade_graph.microworld.world import Difficulty, make_world
from jade_graph.scoring.evaluation import Row, evaluate, plan_shares
from jade_graph.types import Backbone, Sampling
from jade_graph.workflow.engine import Engine

PARTS = ("QDS/R,DS,AG", "QDP/R,DS,AG")
"""Decompositions whose parts select: a model that reads single passages well wants those."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which questions: `n` of one split and seed, in a world of the given difficulty."""

    split: Split = "validation"
    n: int = 300
    seed: int = 0
    difficulty: Difficulty = field(default_factory=Difficulty)


async def measure(
    backbone: Backbone, settings: Settings | None = None, *, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run `jade` greedily and sampled, the fixed presets, every plan on every kind, and the oracle's ceiling.

    Returns:
        `settings`; `arms` {name: figures}; `plan_table` (see `PlanTable.as_dict`) and its Markdown.
    """
    from jade_graph.backbones.scripted import ScriptedBackbone

    settings = settings or Settings()
    world = make_world(settings.split, settings.seed, settings.difficulty)
    questions = make_questions(world, settings.n, seed=settings.seed)
    retriever = WordSearch(world.passages)
    oracle = ScriptedBackbone(OraclePolicy(world, questions), version="microworld-oracle")
    greedy, sampled = Sampling(temperature=0.0), Sampling(temperature=1.0)
    arms: dict[str, Any] = {}
    for name, preset, served, sampling in (
        ("jade, greedy", "jade", backbone, greedy),
        ("jade, sampled", "jade", backbone, sampled),
        ("mmoa-rag", "mmoa-rag", backbone, greedy),
        ("vanilla-rag", "vanilla-rag", backbone, greedy),
        ("jade, oracle", "jade", oracle, greedy),
    ):
        if progress is not None:
            progress(name)
        graph = Engine(served, preset=preset, retriever=retriever, sampling=sampling)
        arms[name] = arm_figures(await evaluate(graph, questions))
    table: PlanTable = await plan_table(
        world, questions, retriever, backbone=backbone, plans=(*PLANS, *PARTS), progress=progress
    )
    described = {"split": settings.split, "n": settings.n, "seed": settings.seed, "passages": len(world.passages)}
    return {
        "settings": {**described, "retriever": "BM25, k = 5"},
        "arms": arms,
        "plan_table": table.as_dict(),
        "plan_table_markdown": table.as_markdown(),
    }


def arm_figures(rows: list[Row]) -> dict[str, Any]:
    """F1, by kind too, calls, illegal actions, failures and plans of an evaluation."""
    calls = sum(r.calls for r in rows)
    kinds = [k for k in KINDS if any(r.type == k for r in rows)]
    return {
        "f1": sum(r.f1 or 0.0 for r in rows) / len(rows),
        "f1_by_kind": {k: _mean([r.f1 or 0.0 for r in rows if r.type == k]) for k in kinds},
        "calls": calls / len(rows),
        "illegal": sum(r.illegal_rate * r.calls for r in rows) / calls,
        "failed": _mean([r.failed_rate for r in rows]),
        "plans": plan_shares(rows),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def size_of(folder: Path) -> int:
    """Bytes of all files in a model folder, checkpoints apart."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
