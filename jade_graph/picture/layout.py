"""Where everything of a run stands: boxes, edges and groups as plain data.

Invariant: no two boxes overlap, every edge starts and ends on the border of a box, and a text is as long as its box is
wide. Parallel sub-questions stand side by side, serial ones below each other. Pure: the same run, the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jade_graph.picture import facts
from jade_graph.picture.facts import Family, Span, State
from jade_graph.picture.text import milliseconds, shortened, width, wrapped
from jade_graph.types import Run, Status, TraceNode, Transition

TITLE, BODY, SMALL = 13.0, 12.5, 11.0
LINE = 17.0
CARD, ACTION = 272.0, 248.0
GAP, COLUMN, INSET = 26.0, 26.0, 16.0
CAPTION = 20.0
MARGIN = 14.0


@dataclass(frozen=True, slots=True)
class Box:
    """One thing of the run. `key`: "a<seq>" an action, "q<id>" a question, "o<id>" what a question came to.

    `lines` are (text, style) with the styles "title", "body", "small" and "trouble", from top to bottom; `note` stands
    at the right of the first line. `label` says all of it to a screen reader. `span`: see `facts.Span`.
    """

    key: str
    family: Family
    state: State
    x: float
    y: float
    w: float
    h: float
    lines: tuple[tuple[str, str], ...]
    note: str
    label: str
    span: Span
    code: str = ""

    @property
    def middle(self) -> float:
        return self.x + self.w / 2


@dataclass(frozen=True, slots=True)
class Edge:
    """From the bottom of one box to the top of another, through `points` with straight, right-angled pieces."""

    source: str
    target: str
    points: tuple[tuple[float, float], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Group:
    """The sub-questions of one split, framed, with a caption."""

    key: str
    x: float
    y: float
    w: float
    h: float
    caption: str
    parallel: bool


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    width: float
    height: float
    steps: int


@dataclass
class _Block:
    """A sub-tree, placed relative to its own corner. `first` and `last` are the boxes that edges lead to and from."""

    boxes: list[Box]
    edges: list[Edge]
    groups: list[Group]
    w: float
    h: float
    first: Box
    last: Box

    def moved(self, x: float, y: float) -> _Block:
        boxes = {b.key: replace(b, x=b.x + x, y=b.y + y) for b in self.boxes}
        edges = [replace(e, points=tuple((px + x, py + y) for px, py in e.points)) for e in self.edges]
        groups = [replace(g, x=g.x + x, y=g.y + y) for g in self.groups]
        return _Block(list(boxes.values()), edges, groups, self.w, self.h, boxes[self.first.key], boxes[self.last.key])


def lay_out(run: Run) -> Picture:
    """The picture of a run, also of one that goes on still."""
    actions, spans = facts.by_node(run), facts.spans(run)
    nodes = {n.id: n for n in run.trace}
    if "0" not in nodes:
        status = {"answered": Status.SOLVED, "failed": Status.FAILED}.get(run.status, Status.RUNNING)
        nodes["0"] = TraceNode("0", run.question, status=status, answer=run.answer, error=run.error)
    block = _Builder(run, nodes, actions, spans).block("0").moved(MARGIN, MARGIN)
    return Picture(
        tuple(block.boxes),
        tuple(block.edges),
        tuple(block.groups),
        block.w + 2 * MARGIN,
        block.h + 2 * MARGIN,
        len(run.transitions),
    )


class _Builder:
    def __init__(
        self,
        run: Run,
        nodes: dict[str, TraceNode],
        actions: Mapping[str, list[Transition]],
        spans: dict[int, Span],
    ) -> None:
        self.run, self.nodes, self.actions, self.spans = run, nodes, actions, spans
        self.born: dict[str, int] = {"0": 0}

    def block(self, node_id: str) -> _Block:
        node = self.nodes[node_id]
        own = self.actions.get(node_id, [])
        before = [t for t in own if not (facts.is_last(t) and node.children)]
        after = [t for t in own if facts.is_last(t) and node.children]
        children = [self.nodes[c] for c in node.children if c in self.nodes]
        split = max((self.spans[t.seq].ends for t in before), default=self.born[node_id])
        for child in children:
            self.born[child.id] = split
        blocks = [self.block(c.id) for c in children]
        column: list[Box | list[_Block]] = [self._card(node, own), *map(self._action, before)]
        if blocks:
            column.append(blocks)
        column += map(self._action, after)
        if not blocks:
            column += self._ahead(node, own)
        if (result := self._outcome(node, own)) is not None:
            column.append(result)
        return self._stack(node, column)

    def _stack(self, node: TraceNode, column: Sequence[Box | list[_Block]]) -> _Block:
        """Put a column together, centred, with edges from each part to the next."""
        parallel = node.order == "parallel"
        wide = max(b.w if isinstance(b, Box) else _spread(b, parallel)[0] for b in column)
        boxes: list[Box] = []
        edges: list[Edge] = []
        groups: list[Group] = []
        ends: list[Box] = []
        y = 0.0
        for part in column:
            if ends:
                y += GAP
            if isinstance(part, Box):
                box = replace(part, x=(wide - part.w) / 2, y=y)
                edges += _edges(ends, [box], y - GAP / 2)
                boxes.append(box)
                ends = [box]
                y += box.h
                continue
            w, h = _spread(part, parallel)
            x = (wide - w) / 2
            caption = f"{len(part)} in parallel" if parallel else f"{len(part)} in sequence"  # clear of the edges
            if len(part) == 1:
                caption = "1 sub-question"
            groups.append(Group(f"g{node.id}", x, y, w, h, caption, parallel))
            placed = _placed(part, x, y, w, parallel)
            for block in placed:
                boxes += block.boxes
                edges += block.edges
                groups += block.groups
            if parallel:
                edges += _edges(ends, [b.first for b in placed], y - GAP / 2)
                ends = [b.last for b in placed]
                y += h
                continue
            for block in placed:
                edges += _edges(ends, [block.first], block.first.y - GAP / 2)
                ends = [block.last]
            y += h
        first = boxes[0]
        return _Block(boxes, edges, groups, wide, y, first, ends[0])

    # --- boxes --------------------------------------------------------------------------------------------------------
    def _card(self, node: TraceNode, own: Sequence[Transition]) -> Box:
        lines = wrapped(node.text, CARD - 28, TITLE, 4, bold=True)
        head = "Question" if node.id == "0" else f"Sub-question {node.id[2:]}"
        plan = f"plan {node.plan}" if node.plan and node.id != "0" else ""
        starts = min((self.spans[t.seq].starts for t in own), default=self.born[node.id])
        over = self._over(node, own)
        state = facts.node_state(node.status, node.error)
        return Box(
            f"q{node.id}", "question", state, 0, 0, CARD, 30 + LINE * len(lines),
            ((head, "small"), *((line, "title") for line in lines)),
            shortened(plan, CARD - 28 - width(head, SMALL) - 12, SMALL), f"{head}: {node.text}. {plan} {state}",
            Span(starts, over),
        )  # fmt: skip

    def _over(self, node: TraceNode, own: Sequence[Transition]) -> int:
        """The step at which a question is settled: its last action's, or that of its last sub-question."""
        found = [self.spans[t.seq].ends for t in own]
        prefix = f"{node.id}."
        found += [self.spans[t.seq].ends for t in self.run.transitions if t.trace_node.startswith(prefix)]
        return max(found, default=len(self.run.transitions))

    def _action(self, t: Transition) -> Box:
        kind, state, span = facts.family(t), facts.state_of(t), self.spans[t.seq]
        name, took = facts.name_of(t.role), milliseconds(t.latency_ms)
        inner = ACTION - (44 if kind == "planner" else 28)
        came = facts.outcome(t)
        body = wrapped(came, inner, BODY, 2) or ("nothing",)
        wrong = facts.trouble(t)
        lines = [(line, "body") for line in body]
        if wrong:
            lines += [(line, "trouble") for line in wrapped(wrong, inner, SMALL, 2)]
        room = inner - width(t.role, TITLE, bold=True) - 8 - width(took, SMALL) - 10
        title = shortened(name if name != t.role else "", room, SMALL)
        return Box(
            f"a{t.seq}", kind, state, 0, 0, ACTION, 30 + LINE * len(lines),
            ((title, "name"), *lines), took,
            f"{t.role} {name}: {came}. {wrong or state}, {took}", span, t.role,
        )  # fmt: skip

    def _ahead(self, node: TraceNode, own: Sequence[Transition]) -> list[Box]:
        """What the plan of a running question still holds: the next step runs, the others wait."""
        if self.run.status != "running" or node.finished or not own or own[-1].error:
            return []
        steps = own[-1].plan.split(",") if own[-1].plan else []
        done = sum(facts.kind_of(t.role) != "planner" for t in own)
        boxes = []
        for i, code in enumerate(steps[done:]):
            name = facts.name_of(code)
            state: State = "pending" if i else "running"
            kind = facts.kind_of(code)
            family: Family = "planner" if kind == "decomposer" else "tool" if code == "R" else "executor"
            told = "waits" if i else "at work …"
            boxes.append(
                Box(
                    f"p{node.id}.{i}", family, state, 0, 0, ACTION, 30 + LINE, ((name, "name"), (told, "body")), "",
                    f"{code} {name}: {told}", Span(len(self.run.transitions), len(self.run.transitions) + 1), code,
                )
            )  # fmt: skip
        return boxes

    def _outcome(self, node: TraceNode, own: Sequence[Transition]) -> Box | None:
        """What a question came to. While it goes on there is nothing to show."""
        if not node.finished and not (node.id == "0" and self.run.status != "running"):
            return None
        root = node.id == "0"
        answer = node.answer or (self.run.answer if root else "")
        error = node.error or (self.run.error if root else None)
        failed = node.status is Status.FAILED or (not answer and bool(error))
        wide = CARD if root else ACTION
        lines: list[tuple[str, str]] = [("Failed" if failed else "Answer", "small")]
        told = (error or "no answer") if failed else answer
        lines += [(line, "title") for line in wrapped(told, wide - 36, TITLE, 3, bold=True)]
        if failed and root and self.run.error_message:
            lines += [(line, "body") for line in wrapped(self.run.error_message, wide - 36, BODY, 4)]
        if root and (verdict := facts.verdict(self.run)):
            lines += [(line, "body") for line in wrapped(verdict, wide - 36, BODY, 3)]
        over = self._over(node, own)
        return Box(
            f"o{node.id}", "outcome", "failed" if failed else "done", 0, 0, wide, 17 + LINE * len(lines),
            tuple(lines), "", f"{'Failed' if failed else 'Answer'}: {told}. {facts.verdict(self.run) if root else ''}",
            Span(over, over),
        )  # fmt: skip


def _spread(blocks: Sequence[_Block], parallel: bool) -> tuple[float, float]:
    """Width and height of a framed group of blocks."""
    if parallel:
        w = sum(b.w for b in blocks) + COLUMN * (len(blocks) - 1)
        h = max(b.h for b in blocks)
    else:
        w = max(b.w for b in blocks)
        h = sum(b.h for b in blocks) + GAP * (len(blocks) - 1)
    return w + 2 * INSET, h + CAPTION + 2 * INSET


def _placed(blocks: Sequence[_Block], x: float, y: float, w: float, parallel: bool) -> list[_Block]:
    out: list[_Block] = []
    at_x, at_y = x + INSET, y + CAPTION + INSET
    for block in blocks:
        if parallel:
            out.append(block.moved(at_x, at_y))
            at_x += block.w + COLUMN
        else:
            out.append(block.moved(x + (w - block.w) / 2, at_y))
            at_y += block.h + GAP
    return out


def _edges(sources: Sequence[Box], targets: Sequence[Box], bus: float) -> list[Edge]:
    """From every source down to every target, turning at the height `bus`, which no box crosses."""
    out = []
    for a in sources:
        for b in targets:
            start, end = (a.middle, a.y + a.h), (b.middle, b.y)
            turn = ((a.middle, bus), (b.middle, bus)) if abs(a.middle - b.middle) > 0.5 else ()
            out.append(Edge(a.key, b.key, (start, *turn, end), Span(a.span.ends, b.span.starts)))
    return out
