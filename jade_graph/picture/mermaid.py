"""The picture of a run as Mermaid text, for documents and issue trackers that draw it.

Invariant: a label is quoted and everything but letters, digits and harmless signs in it is a numeric entity, so no text
of a document or a model can end the label, open another statement or become HTML.
"""

from __future__ import annotations

from jade_graph.picture.layout import Box, Picture, lay_out
from jade_graph.picture.text import clean
from jade_graph.types import Run

_HARMLESS = frozenset(" .,:?!+-/'()→…·×“”")
_SHAPE = {
    "question": ('["', '"]'),
    "planner": ('{{"', '"}}'),
    "executor": ('("', '")'),
    "tool": ('[["', '"]]'),
    "outcome": ('(["', '"])'),
}
_CLASSES = (
    "classDef question fill:#f3f5f8,stroke:#44566c,color:#16202c",
    "classDef planner fill:#f2ecfd,stroke:#7a4fc9,color:#16202c",
    "classDef executor fill:#e6f3f6,stroke:#16758c,color:#16202c",
    "classDef tool fill:#fdf4e3,stroke:#a86b0c,color:#16202c",
    "classDef outcome fill:#e6f5ea,stroke:#1e7f42,color:#16202c",
    "classDef pending stroke-dasharray:3 4",
    "classDef running stroke:#1668dc,stroke-width:3px,stroke-dasharray:9 4",
    "classDef fallback stroke:#b35c00,stroke-width:3px,stroke-dasharray:12 3 3 3",
    "classDef failed stroke:#c42b2b,stroke-width:3px",
)


def mermaid(run: Run) -> str:
    """A Mermaid flowchart of the run: the boxes, edges, groups, families and states of its picture."""
    picture = lay_out(run)
    ids = {box.key: f"n{i}" for i, box in enumerate(picture.boxes)}
    out = ["flowchart TD"]
    out += _grouped(picture, ids)
    out += [f"  {ids[e.source]} --> {ids[e.target]}" for e in picture.edges]
    out += [f"  {line}" for line in _CLASSES]
    for box in picture.boxes:
        out.append(f"  class {ids[box.key]} {box.family}")
        if box.state != "done":
            out.append(f"  class {ids[box.key]} {box.state}")
    return "\n".join(out) + "\n"


def _grouped(picture: Picture, ids: dict[str, str]) -> list[str]:
    """Declarations of the boxes, those of a group within its subgraph, inner groups within outer ones."""
    home: dict[str, str] = {}
    for group in sorted(picture.groups, key=lambda g: g.w * g.h, reverse=True):  # the innermost comes last and stays
        for box in picture.boxes:
            if group.x <= box.x and box.x + box.w <= group.x + group.w and _within(group.y, group.h, box):
                home[box.key] = group.key
    outer = {g.key: home.get(f"q{g.key[1:]}", "") for g in picture.groups}

    def inside(key: str, indent: str) -> list[str]:
        out = [f"{indent}{_declared(b, ids[b.key])}" for b in picture.boxes if home.get(b.key, "") == key]
        for group in picture.groups:
            if outer[group.key] == key:
                name = "g" + "".join(c if c.isalnum() else "_" for c in group.key)
                out += [f'{indent}subgraph {name} ["{escaped(group.caption)}"]', *inside(group.key, indent + "  ")]
                out.append(f"{indent}end")
        return out

    return inside("", "  ")


def _within(y: float, h: float, box: Box) -> bool:
    return y <= box.y and box.y + box.h <= y + h


def _declared(box: Box, name: str) -> str:
    opening, closing = _SHAPE[box.family]
    lines = [text for text, _ in box.lines]
    if box.code:
        lines[0] = f"{box.code} {lines[0]}"
    if box.note:
        lines[0] = f"{lines[0]} · {box.note}"
    return f"{name}{opening}{'<br/>'.join(map(escaped, lines))}{closing}"


def escaped(text: str) -> str:
    """A label's text: "<" becomes "#60;"."""
    kept = clean(" ".join(text.split()))
    return "".join(c if (c.isalnum() or c in _HARMLESS) else f"#{ord(c)};" for c in kept)
