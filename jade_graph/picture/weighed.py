"""The pieces of a text that training judged, by what each weighs: for a terminal and for a page.

Invariant: a weight is always written as a number; colour only says it again. Texts are shown as texts.
"""

from __future__ import annotations

from typing import Any

from rich.text import Text

from jade_graph.picture.text import clean
from jade_graph.types import Run, Transition
from jade_graph.workflow.judged import Judged, judged

_STYLES = {1: "dim red", 2: "red", 3: "yellow", 4: "green", 5: "bold green"}
_HOW = {
    "uniform": "by length alone",
    "joint": "weighed by a role in training",
    "frozen": "weighed by the frozen model",
    "leave_one_out": "weighed by what following text loses without each piece",
}


def of(run: Run, t: Transition) -> Judged | None:
    """What was found of the text of this action; None where it was not judged."""
    return next((text for text in judged(run) if text.seq == t.seq), None)


def line(text: Judged, width: int) -> Text:
    """The pieces in one line of about `width` characters, each behind its weight."""
    out = Text()
    if text.weights is None:
        return out.append(f"not weighed: {text.why}", style="red")
    for i, (piece, weight) in enumerate(zip(text.pieces, text.weights, strict=True)):
        if len(out) >= width:
            return out.append(f" … {len(text.pieces) - i} more", style="dim")
        style = _STYLES[round(weight)]
        out.append(f"[{weight:g}]" if weight == round(weight) else f"[{weight:.1f}]", style=style)
        flat = " ".join(piece.split())
        room = max(12, width - len(out))
        out.append((flat if len(flat) <= room else flat[: room - 1] + "…") + " ", style=style)
    return out


def section(run: Run, t: Transition) -> dict[str, Any] | None:
    """The section of a box's details: kind "pieces" {"pieces": [[text, weight, tokens]], "note"}."""
    text = of(run, t)
    if text is None:
        return None
    how = _HOW.get(str((run.metadata.get("compression") or {}).get("how")), "")
    weights = text.weights or (None,) * len(text.pieces)
    pieces = [
        [clean(piece), None if w is None else round(w, 2), n]
        for piece, w, n in zip(text.pieces, weights, text.lengths, strict=True)
    ]
    why = f"{text.why}: it costs nothing" if text.why and not text.valid else text.why
    note = " · ".join(part for part in (f"{text.tokens} tokens", how, why) if part)
    return {"title": "What of it counts", "kind": "pieces", "pieces": pieces, "note": clean(note)}
