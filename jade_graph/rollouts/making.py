"""The runs of a rollout that one process makes, and what they must all be made with.

Invariant: a run is a pure function of what is due and the facts; who makes it, and beside how many, changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.rollouts.replicas import Planned
from jade_graph.settings.manifest import differences
from jade_graph.types import Run, Runner
from jade_graph.workflow.many import windowed

Due = tuple[Planned, int]
"""A run that is to be made, and its attempt."""

# What must be as it was when a rollout goes on.
FACTS = (
    "preset",
    "seed",
    "sampling",
    "explore",
    "runs_per_plan",
    "limits",
    "backbone_version",
    "frozen_backbone_version",
    "backbones",
    "graph_hash",
    "corpus_id",
)
SAMPLING: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0}
"""A rollout samples from the policy itself, not from a sharpened or cut one."""


def facts_of(
    graph: Runner,
    *,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    explore: float = 0.0,
    runs_per_plan: int = 1,
) -> dict[str, Any]:
    """What a rollout of this graph must be gone on with: `FACTS` and their values, as JSON can hold them."""
    return {
        "preset": graph.preset.name,
        "seed": seed,
        "sampling": {**SAMPLING, **(sampling or {})},
        "explore": float(explore),
        "runs_per_plan": runs_per_plan,
        "limits": asdict(graph.limits),
        "backbone_version": graph.backbone.version,
        "frozen_backbone_version": graph.frozen_backbone.version,
        **({"backbones": graph.versions} if graph.versions else {}),
        "graph_hash": graph.graph_hash,
        "corpus_id": graph.retriever.corpus_id if graph.retriever else "",
    }


def made(
    graph: Runner, due: Sequence[Due], rollout_id: str, options: Mapping[str, Any], concurrency: int
) -> AsyncGenerator[Run, None]:
    """Runs of this process as they end, at most `concurrency` under way at once."""
    return windowed((partial(_run, graph, each, rollout_id, attempt, options) for each, attempt in due), concurrency)


async def _run(graph: Runner, each: Planned, rollout_id: str, attempt: int, options: Mapping[str, Any]) -> Run:
    about = options.get("metadata", {}) | {
        "rollout": rollout_id,
        "replica": each.replica,
        "draw": each.draw,
        "type": each.question.type,
        "answers": list(each.question.answers),
    }
    return await graph.arun(
        each.question,
        seed=each.seed,
        plan_seed=each.plan_seed,
        run_id=each.run_id,
        attempt=attempt,
        **{**options, "metadata": about},
    )


def require_facts(rollout_id: str, facts: Mapping[str, Any], graph: Runner) -> None:
    """Refuse a graph that is not the rollout's: `UsageError` ROLLOUT_CHANGED."""
    drawn = {name: facts[name] for name in ("seed", "sampling", "explore", "runs_per_plan")}
    require_alike(rollout_id, facts, facts_of(graph, **drawn))


def require_alike(rollout_id: str, began: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if unlike := differences(began, facts, FACTS):
        told = "; ".join(f"{name} was {one!r} and is {other!r}" for name, (one, other) in unlike.items())
        raise UsageError(
            f"the rollout {rollout_id!r} cannot go on, it began with something else: {told}.",
            code="ROLLOUT_CHANGED",
            hint="a rollout of another id (jade rollout .. --id NAME), or the settings that it began with",
        )
