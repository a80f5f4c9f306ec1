"""What `jade look` prints: heat maps in text, at 80 columns, and the prompt under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.patching.telling import KIND_NAMES, layer_name, rows_of, strongest
from jade_graph.picture.heatmap import figure, summary
from jade_graph.settings.plain import visible

_WIDTH = 78


def shown(value: Mapping[str, Any]) -> list[Any]:
    """Everything, as renderables."""
    from rich.text import Text

    out: list[Any] = [Text(visible(str(value.get("decision") or "recovery")), style="bold")]
    out += [Text(visible(line)) for line in summary(value)]
    for kind in KIND_NAMES:
        columns, rows = rows_of(value, kind)
        if rows:
            out += ["", *_map(KIND_NAMES[kind], columns, rows)]
    out += ["", Text("the heads that move it most: " + ", ".join(map(head, strongest(value))))]
    for i, (group, words) in enumerate(value.get("prompt") or ()):
        out += [""] if i == 0 else []
        out.append(Text.assemble((f"[{group}] ", "dim"), visible(" ".join(words.split()))))
    own, whole = figure(value["own"]), figure(value["whole"])
    return [*out, Text(f"check: with its own activations {own}, with all the clean ones {whole}", style="dim")]


def head(site: Mapping[str, Any]) -> str:
    """A head with its recovery, and the interval where there is one."""
    told = f"L{layer_name(site['layer'])}H{site['at']} {site['recovery']:+.2f}"
    return told if site["low"] is None else f"{told} ({site['low']:+.2f} to {site['high']:+.2f})"


def _map(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> list[Any]:
    """A table of figures, each on as much of its colour as it has."""
    from rich.text import Text

    wide = max(6, min(12, (_WIDTH - 6) // max(1, len(columns))))
    out = [Text(title, style="bold"), Text(" layer" + "".join(_short(name, wide) for name in columns), style="dim")]
    for layer, values in rows:
        line = Text(f"{layer:>6}")
        for found in values:
            text = "" if found is None else figure(found)
            line.append(f"{text:>{wide - 1}} ", style=_style(found))
        out.append(line)
    return out


def _short(name: str, wide: int) -> str:
    name = name if len(name) < wide else name[: wide - 2] + "…"
    return f"{name:>{wide - 1}} "


def _style(value: float | None) -> str:
    if value is None or abs(value) < 0.05:
        return "dim"
    strong = min(1.0, abs(value))
    red, green, blue = (22, 104, 220) if value > 0 else (179, 92, 0)
    return f"white on rgb({int(red * strong)},{int(green * strong)},{int(blue * strong)})"
