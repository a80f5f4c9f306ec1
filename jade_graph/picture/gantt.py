"""When everything of a run happened, as SVG: a lane per question, waiting and work apart.

Invariant: a bar is as long as its action took on one linear axis. The hatched part is time in the queue of the batch,
the filled part everything else; two bars that overlapped in time never share a lane.
"""

from __future__ import annotations

from collections.abc import Sequence

from jade_graph.picture import facts
from jade_graph.picture.facts import Span
from jade_graph.picture.text import milliseconds, shortened, width, xml
from jade_graph.types import Run, Transition

LEFT, ROW, TOP, BAR = 236.0, 30.0, 34.0, 20.0
_HATCH = (
    '<defs><pattern id="jg-hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="var(--jg-paper)"/><path d="M0 0v6" stroke="var(--jg-line)" stroke-width="3"/>'
    "</pattern></defs>"
)


def gantt_svg(run: Run, *, wide: float = 860.0) -> str:
    """The lanes of a run, `wide` pixels in all."""
    lanes = _lanes(run)
    room = wide - LEFT - 20
    longest = max([t.started_ms + t.latency_ms for t in run.transitions] + [run.wall_ms, 1.0])
    tall = TOP + ROW * max(len(lanes), 1) + 34
    spans = facts.spans(run)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="jg jg-gantt" viewBox="0 0 {wide:g} {tall:g}" '
        f'width="{wide:g}" height="{tall:g}" role="group" aria-label="When each action ran">{_HATCH}'
    ]
    step = _tick(longest, room)
    at = 0.0
    while at <= longest:
        x = LEFT + at / longest * room
        out.append(f'<path class="jg-grid" d="M{x:g} {TOP - 6:g}V{tall - 30:g}"/>')
        label = "0" if not at else milliseconds(at)
        out.append(
            f'<text class="jg-axis" x="{x:g}" y="{TOP - 12:g}" font-size="11" text-anchor="middle">{label}</text>'
        )
        at += step
    for i, (title, actions) in enumerate(lanes):
        y = TOP + i * ROW
        out.append(
            f'<text x="8" y="{y + 19:g}" font-size="12">{xml(shortened(title, LEFT - 24, 12))}'
            f"<title>{xml(title)}</title></text>"
        )
        out += [_bar(t, spans[t.seq], longest, room, y + 4) for t in actions]
    y = tall - 10
    out.append(
        f'<rect class="jg-hatch" x="{LEFT:g}" y="{y - 11:g}" width="22" height="12" stroke="var(--jg-line)"/>'
        f'<text class="jg-axis" x="{LEFT + 30:g}" y="{y:g}" font-size="11">waiting for the batch</text>'
        f'<g class="jg-executor"><rect class="jg-shape" x="{LEFT + 180:g}" y="{y - 11:g}" width="22" height="12"/></g>'
        f'<text class="jg-axis" x="{LEFT + 210:g}" y="{y:g}" font-size="11">model or tool at work</text></svg>'
    )
    return "".join(out)


def _lanes(run: Run) -> list[tuple[str, list[Transition]]]:
    """Actions by question in reading order; those of one question that overlapped get further lanes."""
    texts = {n.id: n.text for n in run.trace}
    by_node = facts.by_node(run)
    out: list[tuple[str, list[Transition]]] = []
    for node in sorted(by_node, key=lambda n: tuple(map(int, n.split(".")))):
        title = texts.get(node, run.question)
        lanes: list[list[Transition]] = []
        for t in sorted(by_node[node], key=lambda t: t.started_ms):
            free = next((lane for lane in lanes if lane[-1].started_ms + lane[-1].latency_ms <= t.started_ms), None)
            if free is None:
                lanes.append([t])
            else:
                free.append(t)
        for i, lane in enumerate(lanes):
            out.append((f"{node[2:] + ' ' if node != '0' else ''}{title}" if not i else "", lane))
    return out


def _bar(t: Transition, span: Span, longest: float, room: float, y: float) -> str:
    x = LEFT + t.started_ms / longest * room
    w = max(t.latency_ms / longest * room, 2.0)
    waited = min(t.queue_ms, t.latency_ms)
    wait = waited / max(t.latency_ms, 1e-9) * w
    state = facts.state_of(t)
    told = f"{t.role} {facts.name_of(t.role)}: {milliseconds(t.latency_ms)}"
    if waited:
        told += f", of which {milliseconds(waited)} waiting for the batch"
    parts = [
        f'<g class="jg-box jg-{facts.family(t)} jg-is-{state}" data-key="a{t.seq}" data-final="{state}" '
        f'data-starts="{span.starts}" data-ends="{span.ends}" tabindex="0" role="button" aria-label="{xml(told)}">'
        f"<title>{xml(told)}</title>",
        f'<rect class="jg-shape" x="{x:g}" y="{y:g}" width="{w:g}" height="{BAR:g}" rx="2"/>',
    ]
    if wait > 1:
        parts.append(f'<rect class="jg-hatch" x="{x:g}" y="{y:g}" width="{wait:g}" height="{BAR:g}" rx="2"/>')
    if w - wait > width(t.role, 11, bold=True) + 8:
        parts.append(
            f'<text class="jg-code" x="{x + wait + (w - wait) / 2:g}" y="{y + 14:g}" font-size="11" '
            f'text-anchor="middle">{xml(t.role)}</text>'
        )
    return "".join([*parts, "</g>"])


def _tick(longest: float, room: float) -> float:
    """A round distance between ticks, so that their labels stand apart."""
    steps: Sequence[float] = [m * 10**e for e in range(8) for m in (1, 2, 5)]
    return next((s for s in steps if s / longest * room >= 80), longest)
