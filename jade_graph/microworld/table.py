"""The plan table: how well every plan does on every kind of question, and what routing between them is worth.

Invariant: each cell is measured by running the engine with that plan forced on the root question; nothing is derived
from what a plan ought to do. `routed` takes for each kind the plan that is best there, the cheaper one among equals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jade_graph import plugins
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.questions import KINDS
from jade_graph.microworld.world import World
from jade_graph.scoring.evaluation import evaluate
from jade_graph.types import Backbone, Preset, Question, Retriever
from jade_graph.workflow.engine import Engine

PLANS = ("AG", "R,AG", "R,DS,AG", "QR,AG", "QR,R,AG", "QR,R,DS,AG", "QDS", "QDP")


@dataclass(frozen=True, slots=True)
class Cell:
    """One plan on one kind: mean F1 (0 to 1), calls of roles and retrievals a question, illegal actions a call."""

    f1: float
    calls: float
    retrievals: float
    illegal: float


@dataclass(frozen=True, slots=True)
class PlanTable:
    """`cells[plan][kind]`, and the share of each kind among the questions."""

    cells: dict[str, dict[str, Cell]]
    shares: dict[str, float]

    def fixed(self, plan: str) -> Cell:
        """What the plan does on the whole mixture."""
        row = self.cells[plan]
        return Cell(*(sum(self.shares[k] * getattr(row[k], f) for k in row) for f in Cell.__slots__))

    def route(self) -> dict[str, str]:
        """Kind to its best plan: the highest F1 (to a thousandth), then the fewest calls."""
        return {
            kind: max(self.cells, key=lambda p: (round(self.cells[p][kind].f1, 3), -self.cells[p][kind].calls))
            for kind in self.shares
        }

    def routed(self) -> Cell:
        """What the mixture gets when every kind takes its best plan."""
        route = self.route()
        best = {kind: self.cells[route[kind]][kind] for kind in route}
        return Cell(*(sum(self.shares[k] * getattr(best[k], f) for k in best) for f in Cell.__slots__))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `cells`, `fixed`, `route`, `routed`."""

        def figures(cell: Cell) -> dict[str, float]:
            return {name: round(getattr(cell, name), 4) for name in Cell.__slots__}

        return {
            "shares": self.shares,
            "cells": {p: {k: figures(c) for k, c in row.items()} for p, row in self.cells.items()},
            "fixed": {p: figures(self.fixed(p)) for p in self.cells},
            "route": self.route(),
            "routed": figures(self.routed()),
        }

    def as_markdown(self) -> str:
        """One row a plan; F1 by kind, on the mixture, and calls a question."""
        kinds = list(self.shares)
        lines = [f"| plan | {' | '.join(kinds)} | all | calls |", f"|---{'|---:' * (len(kinds) + 2)}|"]
        for plan, row in self.cells.items():
            whole = self.fixed(plan)
            cells = " | ".join(f"{row[k].f1:.2f}" for k in kinds)
            lines.append(f"| `{plan}` | {cells} | {whole.f1:.2f} | {whole.calls:.1f} |")
        route, whole = self.route(), self.routed()
        cells = " | ".join(f"`{route[k]}`" for k in kinds)
        lines.append(f"| routed | {cells} | {whole.f1:.2f} | {whole.calls:.1f} |")
        return "\n".join(lines)


async def plan_table(
    world: World,
    questions: Sequence[Question],
    retriever: Retriever,
    *,
    backbone: Backbone | None = None,
    plans: Sequence[str] = PLANS,
    facts: int = 1,
    progress: Callable[[str], None] | None = None,
) -> PlanTable:
    """Force each plan on each question under the `jade` preset.

    Args:
        backbone: carries out the roles, greedily; default: the oracle, sub-questions planned as R,AG.
        plans: each a workflow; behind "/", one that every sub-question takes ("QDS/R,DS,AG"), else it is planned.
        facts: see `OraclePolicy`.
        progress: told each plan before it runs.
    """
    from jade_graph.backbones.scripted import ScriptedBackbone

    oracle = OraclePolicy(world, questions, facts=facts)
    served = backbone or ScriptedBackbone(oracle, version="microworld-oracle")
    jade: Preset = plugins.load("jade.presets", "jade")
    kinds: list[str] = [k for k in KINDS if any(q.type == k for q in questions)]
    shares = {k: sum(q.type == k for q in questions) / len(questions) for k in kinds}
    cells: dict[str, dict[str, Cell]] = {}
    for plan in plans:
        if progress is not None:
            progress(plan)
        root, _, parts = plan.partition("/")
        preset = replace(jade, name="jade-parts", plan=root, sub_plan=parts) if parts else jade
        rows = await evaluate(Engine(served, preset=preset, retriever=retriever), questions, plan=root)
        cells[plan] = {}
        for kind in kinds:
            of_kind = [r for r in rows if r.type == kind]
            n = len(of_kind)
            cells[plan][kind] = Cell(
                sum(r.f1 or 0.0 for r in of_kind) / n,
                sum(r.calls for r in of_kind) / n,
                sum(r.retrievals for r in of_kind) / n,
                sum(r.illegal_rate for r in of_kind) / n,
            )
    return PlanTable(cells, shares)
