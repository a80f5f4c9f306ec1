"""The static graph of a method, with what a run took of it lit.

Invariant: pure. Nodes are the roles and tools of the legal plans in the order in which plans use them; every edge that
a plan can take is drawn, and its number says how often the run took it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jade_graph.picture import facts
from jade_graph.picture.text import xml
from jade_graph.types import Run, Transition

_W, _H, _X, _Y = 98.0, 48.0, 134.0, 72.0
TOP = 16.0
START, END = "start", "end"


@dataclass(frozen=True, slots=True)
class Topology:
    """What a method can do: `plans` are its legal workflows, as tuples of codes. A loop has one, its parts in order,
    and says by `edges` who may follow whom.
    """

    planner: str | None
    summarizer: str | None
    plans: tuple[tuple[str, ...], ...]
    tools: frozenset[str] = frozenset()
    edges: tuple[tuple[str, str], ...] = ()


def topology_of(run: Run) -> Topology:
    """That of the run's preset; of a run of something else, what it did."""
    from jade_graph import plugins
    from jade_graph.errors import JadeError
    from jade_graph.workflow import loops
    from jade_graph.workflow.parts import Parts, limits_of

    try:
        preset = plugins.load("jade.presets", run.preset)
        parts = Parts(preset, limits_of(preset))
    except JadeError:
        seen = tuple(dict.fromkeys(t.role for t in run.transitions))
        tools = frozenset(t.role for t in run.transitions if facts.family(t) == "tool")
        return Topology(None, None, (seen,) if seen else (), tools)
    if parts.loop is not None:
        codes, tools = loops.codes(parts.loop), frozenset(parts.tools)
        return Topology(None, None, (codes,), tools, (*parts.loop.edges, *parts.loop.turns))
    planner = parts.planner.code if parts.planner else None
    summarizer = parts.summarizer.code if parts.summarizer else None
    plans = tuple(p.steps for p in parts.grammar.plans)
    return Topology(planner, summarizer, plans, frozenset(parts.tools))


def topology_svg(run: Run, topology: Topology | None = None) -> str:
    """The graph of the run's method with its path lit."""
    top = topology or topology_of(run)
    codes = list(dict.fromkeys(c for plan in sorted(top.plans, key=len, reverse=True) for c in plan))
    splits = [c for c in codes if facts.kind_of(c) == "decomposer"]
    row = [c for c in codes if c not in splits]
    nodes = _places(top, row, splits)
    used = Counter(t.role for t in run.transitions)
    steps = _taken(run)
    edges = _edges(top, splits)
    wide = max(x for x, _ in nodes.values()) + _W + 20
    arcs = sum(_between(a, b, nodes) for a, b in edges)
    tall = max(y for _, y in nodes.values()) + _H + 30 + 13 * arcs
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="jg jg-topo" viewBox="0 0 {wide:g} {tall:g}" width="{wide:g}" '
        f'height="{tall:g}" role="group" aria-label="What the method can do, and what this run did">'
    ]
    depth = 0
    drawn = []
    for a, b in edges:
        depth += _between(a, b, nodes)
        drawn.append((a, b, depth if _between(a, b, nodes) else 0, steps[a, b]))
    for a, b, level, count in sorted(drawn, key=lambda d: d[3] > 0):  # those that were taken on top
        out.append(_edge(nodes[a], nodes[b], level, count))
    for code, (x, y) in nodes.items():
        out.append(_node(code, x, y, used[code], run, top))
    out.append("</svg>")
    return "".join(out)


def _places(top: Topology, row: Sequence[str], splits: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Corner of each node: the chain of executors in one row, what splits above it."""
    middle = TOP + _Y * len(splits) if splits else TOP
    x = 20.0
    nodes = {START: (x, middle)}
    x += _X
    if top.planner:
        nodes[top.planner] = (x, middle)
        x += _X
    for i, code in enumerate(splits):
        nodes[code] = (x, TOP + i * _Y)
    for code in row:
        nodes[code] = (x, middle)
        x += _X
    if top.summarizer:
        nodes[top.summarizer] = (x, TOP)
    nodes[END] = (x, middle)
    return nodes


def _edges(top: Topology, splits: Sequence[str]) -> list[tuple[str, str]]:
    if top.edges:
        return list(dict.fromkeys([(START, top.plans[0][0]), *top.edges]))
    first = top.planner or None
    found: dict[tuple[str, str], None] = {}
    for plan in top.plans:
        chain = [START, *([first] if first else []), *plan]
        if plan[-1] not in splits:
            chain.append(END)
        found.update(dict.fromkeys(pairwise(chain)))
    if top.summarizer:
        for code in splits:
            found[code, top.summarizer] = None
        found[top.summarizer, END] = None
    return list(found)


def _taken(run: Run) -> Counter[tuple[str, str]]:
    """How often the run went from one role to the next, question by question."""
    out: Counter[tuple[str, str]] = Counter()
    for actions in facts.by_node(run).values():
        own: list[Transition] = sorted(actions, key=lambda t: t.seq)
        chain = [START, *(t.role for t in own)]
        if run.status != "running" and facts.kind_of(own[-1].role) != "decomposer" and own[-1].error is None:
            chain.append(END)
        out.update(pairwise(chain))
    return out


def _between(a: str, b: str, nodes: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a straight edge would run through another node, or leads back."""
    (ax, ay), (bx, by) = nodes[a], nodes[b]
    return ay == by and (bx < ax or any(y == ay and ax < x < bx for x, y in nodes.values()))


def _edge(a: tuple[float, float], b: tuple[float, float], level: int, count: int) -> str:
    kind = "jg-taken" if count else "jg-unused"
    ax, ay, bx, by = a[0] + _W, a[1] + _H / 2, b[0], b[1] + _H / 2
    if a[0] == b[0]:  # straight down
        ax = a[0] + _W / 2
        line, head = f"M{ax:g} {a[1] + _H:g}V{b[1] - 7:g}", f"M{ax:g} {b[1]:g}l-4.5 -8h9z"
        at = (ax, (a[1] + _H + b[1]) / 2)
    elif level:  # an arc below the row, deeper the later it was drawn, so that no two share a line
        ax, bx, low = a[0] + _W - 16 - (level * 11) % 50, b[0] + 14 + (level * 13) % 56, a[1] + _H + 14 + 13 * level
        start, end, side = a[1] + _H, b[1] + _H, 8 if ax < bx else -8
        line = f"M{ax:g} {start:g}V{low - 8:g}Q{ax:g} {low:g} {ax + side:g} {low:g}H{bx - side:g}"
        line += f"Q{bx:g} {low:g} {bx:g} {low - 8:g}V{end + 7:g}"
        head = f"M{bx:g} {end:g}l-4.5 8h9z"
        at = ((ax + bx) / 2, low)
    elif ay == by:
        line, head = f"M{ax:g} {ay:g}H{bx - 7:g}", f"M{bx:g} {by:g}l-8 -4.5v9z"
        at = ((ax + bx) / 2, ay)
    elif bx - ax > _X:  # along its own row, then up into the target from below
        bx += 20
        line = f"M{ax:g} {ay:g}H{bx - 8:g}Q{bx:g} {ay:g} {bx:g} {ay - 8:g}V{b[1] + _H + 7:g}"
        head = f"M{bx:g} {b[1] + _H:g}l-4.5 8h9z"
        at = ((ax + bx) / 2, ay)
    else:  # leave at the side, turn in the free strip before the target
        turn = ax + 20 if by < ay else bx - 24
        corner = 8.0 if by > ay else -8.0
        line = f"M{ax:g} {ay:g}H{turn - 8:g}Q{turn:g} {ay:g} {turn:g} {ay + corner:g}V{by - corner:g}"
        line += f"Q{turn:g} {by:g} {turn + 8:g} {by:g}H{bx - 7:g}"
        head = f"M{bx:g} {by:g}l-8 -4.5v9z"
        at = (turn, (ay + by) / 2)
    label = ""
    if count > 1:
        text = f"×{count}"
        label = f'<text x="{at[0]:g}" y="{at[1] - 6:g}" font-size="11" text-anchor="middle">{text}</text>'
    return f'<g class="jg-edge {kind}"><path class="jg-line" d="{line}"/><path class="jg-head" d="{head}"/>{label}</g>'


def _node(code: str, x: float, y: float, used: int, run: Run, top: Topology) -> str:
    if code in (START, END):
        text = "Question" if code == START else "Answer"
        lit = code == START or run.status == "answered"
        family = "question" if code == START else "outcome"
        shape = f'<rect class="jg-shape" x="{x:g}" y="{y:g}" width="{_W:g}" height="{_H:g}" rx="{_H / 2:g}"/>'
        return (
            f'<g class="jg-{family} {"" if lit else "jg-unused"}">{shape}<text class="jg-title" x="{x + _W / 2:g}" '
            f'y="{y + 29:g}" font-size="13" text-anchor="middle">{text}</text></g>'
        )
    planner = facts.kind_of(code) in ("planner", "decomposer")
    family = "tool" if code in top.tools else "planner" if planner else "executor"
    if planner:
        line = f"M{x + 12:g} {y:g}H{x + _W - 12:g}l12 {_H / 2:g}l-12 {_H / 2:g}H{x + 12:g}l-12 {-_H / 2:g}Z"
        shape = f'<path class="jg-shape" d="{line}"/>'
    else:
        radius = 0 if family == "tool" else 9
        shape = f'<rect class="jg-shape" x="{x:g}" y="{y:g}" width="{_W:g}" height="{_H:g}" rx="{radius}"/>'
    times = "not used" if not used else "once" if used == 1 else f"{used} times"
    return (
        f'<g class="jg-{family} {"" if used else "jg-unused"}"><title>{xml(facts.name_of(code))}</title>{shape}'
        + _middle("code", x, y + 21, 13, code)
        + _middle("small", x, y + 37, 11, times)
        + "</g>"
    )


def _middle(style: str, x: float, y: float, size: int, text: str) -> str:
    at = f'x="{x + _W / 2:g}" y="{y:g}"'
    return f'<text class="jg-{style}" {at} font-size="{size}" text-anchor="middle">{xml(text)}</text>'
