"""Recoveries as heat maps: a panel a kind of site, a row a layer, the prompt's text under them.

Invariant: every cell has its figure in it and in its title, so that nothing is told by colour alone; colours come from
the style sheet of all pictures, for light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.patching.telling import KIND_NAMES, rows_of
from jade_graph.picture.svg import asset
from jade_graph.picture.text import shortened, wrapped, xml

_CELL_W, _CELL_H, _LEFT, _GAP, _PAD = 46.0, 18.0, 34.0, 30.0, 18.0
_TITLE, _TEXT, _SMALL = 15.0, 11.5, 10.0


def svg(value: Mapping[str, Any]) -> str:
    """The picture of what `telling.of_decision` gives (or any value with "sites" and "groups")."""
    panels = [(kind, *rows_of(value, kind)) for kind in KIND_NAMES]
    panels = [panel for panel in panels if panel[2]]
    out: list[str] = []
    x, top, high = _PAD, _PAD + 78.0, 0.0
    for kind, columns, rows in panels:
        out.append(_panel(kind, columns, rows, x, top))
        x += _LEFT + _CELL_W * len(columns) + _GAP
        high = max(high, top + 44 + _CELL_H * len(rows))
    width, y = max(x - _GAP + _PAD, 640.0), high + 26
    for line in _words(value, width - 2 * _PAD):
        out.append(f'<text class="jg-note" x="{_PAD:g}" y="{y:g}" font-size="{_TEXT:g}">{xml(line)}</text>')
        y += 16
    head = [
        f'<text class="jg-title" x="{_PAD:g}" y="{_PAD + 12:g}" font-size="{_TITLE:g}">'
        f"{xml(shortened(str(value.get('decision') or 'recovery'), width - 2 * _PAD, _TITLE))}</text>"
    ]
    for i, line in enumerate(summary(value)):
        line = shortened(line, width - 2 * _PAD, _TEXT)
        head.append(f'<text x="{_PAD:g}" y="{_PAD + 32 + 17 * i:g}" font-size="{_TEXT:g}">{xml(line)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="jg jg-look" viewBox="0 0 {width:g} {y + 6:g}" '
        f'width="{width:g}" height="{y + 6:g}" role="group" aria-label="Recovery by layer and position">'
        f"<style>{asset('picture.css')}</style>"
        f'<rect class="jg-paper" width="{width:g}" height="{y + 6:g}"/>' + "".join(head + out) + "</svg>"
    )


def summary(value: Mapping[str, Any]) -> list[str]:
    """What is compared, in three lines."""
    swapped = value.get("swapped")
    lines = [f"logit difference, clean {value['ld_clean']:+.2f}, corrupted {value['ld_corrupt']:+.2f}; {value['n']} "
             f"pair{'s' if value['n'] != 1 else ''}; recovery 1 is all of it, below 0 the other way"]  # fmt: skip
    if swapped:
        lines.append(f"swapped: {swapped['old']!r} for {swapped['new']!r}")
    notes = [str(note) for note in value.get("notes") or ()]
    return [*lines, "; ".join(notes)] if notes else lines


def _panel(kind: str, columns: list[str], rows: list[tuple[str, list[float | None]]], x: float, y: float) -> str:
    out = [
        f'<g role="img" aria-label="{xml(KIND_NAMES[kind])}"><text class="jg-title" x="{x:g}" y="{y:g}" '
        f'font-size="{_TEXT:g}">{xml(KIND_NAMES[kind])}</text>'
    ]
    for i, name in enumerate(columns):
        at = x + _LEFT + _CELL_W * (i + 0.5)
        lines = wrapped(name, _CELL_W - 2, _SMALL, 2)
        for j, line in enumerate(lines):
            out.append(
                f'<text class="jg-small" text-anchor="middle" x="{at:g}" y="{y + 16 + 11 * j:g}" '
                f'font-size="{_SMALL:g}">{xml(line)}</text>'
            )
    for r, (layer, values) in enumerate(rows):
        down = y + 36 + _CELL_H * r
        out.append(
            f'<text class="jg-small" text-anchor="end" x="{x + _LEFT - 6:g}" y="{down + 13:g}" '
            f'font-size="{_SMALL:g}">{xml(layer)}</text>'
        )
        for i, found in enumerate(values):
            if found is None:
                continue
            left, tone = x + _LEFT + _CELL_W * i, "run" if found >= 0 else "warn"
            told = f"{KIND_NAMES[kind]}, layer {layer}, {columns[i]}: {found:+.3f}"
            out.append(
                f'<g><title>{xml(told)}</title><rect x="{left:g}" y="{down:g}" width="{_CELL_W - 2:g}" '
                f'height="{_CELL_H - 2:g}" rx="3" stroke="var(--jg-frame)" fill="var(--jg-{tone})" '
                f'fill-opacity="{shade(found):.3f}"/><text text-anchor="middle" x="{left + _CELL_W / 2 - 1:g}" '
                f'y="{down + 12:g}" font-size="{_SMALL:g}">{figure(found)}</text></g>'
            )
    return "".join([*out, "</g>"])


def shade(value: float) -> float:
    """How much of the colour a cell has: half of it is all, so that the figure can be read."""
    return min(abs(value), 1.0) * 0.5


def figure(value: float) -> str:
    """Two decimals, and 0 for what is none."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _words(value: Mapping[str, Any], room: float) -> list[str]:
    out: list[str] = []
    for group, text in value.get("prompt") or ():
        out += wrapped(f"[{group}] {text}", room, _TEXT, 4)
    return out


def write(value: Mapping[str, Any], path: Path) -> None:
    """Write the picture, by its ending. Raises `UsageError` LOOK_PICTURE."""
    kind = path.suffix.lower()
    if kind == ".svg":
        path.write_text(svg(value), encoding="utf-8")
    elif kind == ".png":
        _png(value, path)
    else:
        raise UsageError(f"{str(path)!r} names no kind of picture.", code="LOOK_PICTURE", known=(".png", ".svg"))


def _png(value: Mapping[str, Any], path: Path) -> None:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "a PNG is drawn by matplotlib, which is not installed.",
            code="LOOK_PICTURE",
            hint='--out FILE.svg, or pip install "jade-graph[train]"',
        ) from error
    panels = [(kind, *rows_of(value, kind)) for kind in KIND_NAMES]
    panels = [panel for panel in panels if panel[2]]
    widths = [len(columns) + 1 for _, columns, _ in panels]
    with mpl.rc_context({"font.size": 8}):
        size = (0.55 * sum(widths) + 1, 0.24 * max(len(rows) for _, _, rows in panels) + 2.2)
        drawn: Any = Figure(figsize=size, layout="constrained")
        places = drawn.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
        for at, (kind, columns, rows) in zip(places, panels, strict=True):
            cells = [[float("nan") if v is None else v for v in values] for _, values in rows]
            at.imshow(cells, cmap="RdBu", vmin=-1.4, vmax=1.4, aspect="auto")
            at.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
            at.set_yticks(range(len(rows)), [name for name, _ in rows])
            at.set_title(KIND_NAMES[kind], fontsize=8)
            for r, (_, values) in enumerate(rows):
                for c, found in enumerate(values):
                    if found is not None:
                        at.text(c, r, figure(found), ha="center", va="center", fontsize=6)
        drawn.suptitle("\n".join([str(value.get("decision") or "recovery"), summary(value)[0]]), fontsize=9)
        drawn.savefig(path, dpi=150)
