"""The arms of the comparison: who learns, and on which graph.

Invariant: arms differ in the preset alone. Start, questions, number of runs, updates and hyper-parameters are shared,
and roles that do not learn are served by the start, greedily.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jade_graph import plugins
from jade_graph.errors import unknown
from jade_graph.types import Preset

EXECUTORS = frozenset({"QDS", "QDP", "QR", "DS", "AG", "AS"})


@dataclass(frozen=True, slots=True)
class Arm:
    """`learns` False: the start as it is. `fixed`: its graph is the same for every question."""

    name: str
    title: str
    preset: Preset
    learns: bool = True
    fixed: bool = False


def fixed_graph(jade: Preset, graph: str) -> Preset:
    """All roles learn on one graph: a plan, and behind "/" that of a decomposition's parts ("QDS/R,DS,AG")."""
    plan, _, parts = graph.partition("/")
    name = f"static-{graph.lower().replace(',', '-').replace('/', '-')}"
    return replace(jade, name=name, title=f"static: {graph}", plan=plan, sub_plan=parts or "R,AG", limits={"depth": 1})


def all_arms() -> Mapping[str, Arm]:
    """Every arm by name, in the order of the report."""
    jade: Preset = plugins.load("jade.presets", "jade")
    planner_only = replace(jade, name="decoupled", trainable=frozenset({"PL"}))
    arms = [
        Arm("start", "no learning", jade, learns=False),
        Arm("decoupled", "planner only, executors frozen", planner_only),
        Arm("executors", "executors only, planner frozen", replace(jade, name="executors", trainable=EXECUTORS)),
        *(
            Arm(f"static {graph}", f"static joint on {graph}", fixed_graph(jade, graph), fixed=True)
            for graph in ("R,AG", "QR,R,AG", "QR,R,DS,AG", "QDS/R,AG", "QDS/R,DS,AG")
        ),
        Arm("joint", "JADE: planner and executors", jade),
    ]
    return {arm.name: arm for arm in arms}


QUICK = ("start", "decoupled", "static R,AG", "static QR,R,DS,AG", "static QDS/R,DS,AG", "joint")


def chosen(names: str | None, *, quick: bool) -> list[Arm]:
    """Arms by their names, separated by semicolons ("static R,AG" holds a comma); None: the usual ones.

    Raises:
        UsageError: UNKNOWN_ARM.
    """
    arms = all_arms()
    wanted = [n.strip() for n in names.split(";")] if names else list(QUICK if quick else arms)
    for name in wanted:
        if name not in arms:
            raise unknown("arm", name, arms, code="UNKNOWN_ARM")
    return [arm for name, arm in arms.items() if name in wanted]
