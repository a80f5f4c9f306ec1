"""The picture of a run as SVG.

Invariant: every text goes through `text.xml`; colours come from the style sheet, so that one picture serves light and
dark; each box is a group with its key, its family and state as classes, and a label for screen readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jade_graph.picture.layout import BODY, LINE, SMALL, TITLE, Box, Edge, Group, Picture
from jade_graph.picture.text import width, xml

ASSETS = Path(__file__).parent / "assets"
_SIZE = {"title": TITLE, "name": SMALL, "body": BODY, "small": SMALL, "trouble": SMALL}
_MARK = {"failed": "✕", "fallback": "!"}
_RADIUS = 8.0


@cache
def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return (ASSETS / name).read_text(encoding="utf-8")


def tree_svg(picture: Picture, *, style: bool = True, label: str = "The run as a tree") -> str:
    """The picture.

    Args:
        style: put the style sheet in, so that the SVG stands alone. A page has it once for all pictures.
    """
    w, h = picture.width, picture.height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="jg jg-tree" viewBox="0 0 {w:g} {h:g}" width="{w:g}" '
        f'height="{h:g}" role="group" aria-label="{xml(label)}">'
    ]
    if style:
        out.append(f"<style>{asset('picture.css')}</style>")
        out.append(f'<rect class="jg-paper" width="{w:g}" height="{h:g}"/>')
    out += map(_group, picture.groups)
    # Lit edges last, so that a faint one never crosses one that was taken.
    out += map(_edge, picture.edges)
    out += map(_box, picture.boxes)
    out.append("</svg>")
    return "".join(out)


def _group(group: Group) -> str:
    kind = "parallel" if group.parallel else "serial"
    return (
        f'<g class="jg-group jg-{kind}"><rect x="{group.x:g}" y="{group.y:g}" width="{group.w:g}" '
        f'height="{group.h:g}" rx="10"/><text x="{group.x + 12:g}" y="{group.y + 16:g}" '
        f'font-size="{SMALL:g}">{xml(group.caption)}</text></g>'
    )


def _edge(edge: Edge) -> str:
    points = list(edge.points)
    tip = points[-1]
    points[-1] = (tip[0], tip[1] - 6)  # the line ends where the head begins
    head = f"M{tip[0]:g} {tip[1]:g}l-4.5 -8h9z"
    return (
        f'<g class="jg-edge" data-starts="{edge.span.starts}" data-ends="{edge.span.ends}">'
        f'<path class="jg-line" d="{_rounded(points)}"/><path class="jg-head" d="{head}"/></g>'
    )


def _rounded(points: Sequence[tuple[float, float]]) -> str:
    """Right-angled pieces with rounded corners."""
    out = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        a, b = _towards(corner, before), _towards(corner, after)
        out.append(f"L{a[0]:g} {a[1]:g}Q{corner[0]:g} {corner[1]:g} {b[0]:g} {b[1]:g}")
    out.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return "".join(out)


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    reach = min(_RADIUS, length / 2)
    return corner[0] + dx / length * reach, corner[1] + dy / length * reach


def _box(box: Box) -> str:
    classes = f"jg-box jg-{box.family} jg-is-{box.state}"
    return (
        f'<g class="{classes}" data-key="{xml(box.key)}" data-final="{box.state}" data-starts="{box.span.starts}" '
        f'data-ends="{box.span.ends}" tabindex="0" role="button" aria-label="{xml(box.label)}">'
        f"<title>{xml(box.label)}</title>{_shape(box)}{_texts(box)}{_mark(box)}</g>"
    )


def _shape(box: Box) -> str:
    x, y, w, h = box.x, box.y, box.w, box.h
    if box.family == "planner":  # a hexagon
        cut = 14.0
        outline = f"M{x + cut:g} {y:g}H{x + w - cut:g}L{x + w:g} {y + h / 2:g}L{x + w - cut:g} {y + h:g}H{x + cut:g}"
        return f'<path class="jg-shape" d="{outline}L{x:g} {y + h / 2:g}Z"/>'
    radius = {"question": 3.0, "outcome": h / 2, "tool": 0.0}.get(box.family, 9.0)
    shape = f'<rect class="jg-shape" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{min(radius, 22):g}"/>'
    if box.family == "question":
        return shape + f'<rect class="jg-band" x="{x:g}" y="{y:g}" width="5" height="{h:g}" rx="2"/>'
    if box.family == "tool":  # bars at both sides: a call of something outside the model
        bars = f"M{x + 6:g} {y:g}v{h:g}M{x + w - 6:g} {y:g}v{h:g}"
        return shape + f'<path class="jg-bars" d="{bars}"/>'
    return shape


def _texts(box: Box) -> str:
    left = box.x + {"planner": 22, "question": 16, "outcome": 18}.get(box.family, 14)
    right = box.x + box.w - {"planner": 22, "question": 12, "outcome": 18}.get(box.family, 14)
    y = box.y + 19
    out = []
    for i, (text, style) in enumerate(box.lines):
        x = left
        if style == "name" and box.code:
            out.append(_text(x, y, TITLE, "code", box.code))
            x += width(box.code, TITLE, bold=True) + 8
        out.append(_text(x, y, _SIZE[style], style, text))
        if i == 0 and box.note:
            out.append(_text(right, y, SMALL, "note", box.note, anchor="end"))
        y += LINE
    return "".join(out)


def _text(x: float, y: float, size: float, style: str, text: str, *, anchor: str = "start") -> str:
    if not text:
        return ""
    return (
        f'<text class="jg-{style}" x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}">{xml(text)}</text>'
    )


def _mark(box: Box) -> str:
    """A sign on the corner, for whoever does not see colours."""
    sign = _MARK.get(box.state)
    if sign is None:
        return ""
    x, y = box.x + box.w - (14 if box.family == "planner" else 4), box.y + 1
    return (
        f'<g class="jg-mark"><circle cx="{x:g}" cy="{y:g}" r="8"/>'
        f'<text x="{x:g}" y="{y + 4:g}" font-size="11" text-anchor="middle">{sign}</text></g>'
    )
