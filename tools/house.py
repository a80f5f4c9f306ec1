"""The house, read from its imports: rooms, floors, arrows, circles; and the picture in docs/architecture.md.

Invariant: nothing of the project is imported or run. Floors are those of the import-linter contracts in pyproject.toml,
so the drawing, the linter and the tests cannot disagree. Needs Python alone: `python tools/house.py --help`.
"""

from __future__ import annotations

import argparse
import ast
import html
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "jade_graph": ROOT / "jade_graph",
    "jade_nodes": ROOT / "nodes" / "jade_nodes",
    "jade_training": ROOT / "training" / "jade_training",
}
PICTURES = {
    "jade_graph": ROOT / "docs" / "img" / "rooms.svg",
    "jade_training": ROOT / "docs" / "img" / "rooms-training.svg",
}

Kind = Literal["import", "function", "type"]
"""When the import is carried out: with the module, when a function is called, or never (for types alone)."""


@dataclass(frozen=True, slots=True, order=True)
class Import:
    by: str
    of: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.by} -> {self.of} ({self.kind})"


def modules(package: str, folder: Path) -> dict[str, Path]:
    """Every module of a package, by its dotted name."""
    out = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(known: Mapping[str, Path]) -> list[Import]:
    """Every import of one known module by another, those within functions and those for types alone too."""
    found = set()
    for name, path in known.items():
        for node, kind in _statements(ast.parse(path.read_text("utf-8")), "import"):
            found |= {Import(name, _module(of, known), kind) for of in _named(node, name, path)}
    return sorted(each for each in found if each.of and each.of != each.by)


def _statements(tree: ast.AST, kind: Kind) -> Iterator[tuple[ast.AST, Kind]]:
    for child in ast.iter_child_nodes(tree):
        inner: Kind = kind
        if isinstance(child, ast.Import | ast.ImportFrom) or _by_name(child):
            yield child, kind
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for each in child.body for found in _within(each, "type"))
            yield from (found for each in child.orelse for found in _within(each, kind))
            continue
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and kind == "import":
            inner = "function"
        yield from _statements(child, inner)


def _by_name(node: ast.AST) -> str:
    """The module that `import_module("..")` names, as plain text."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
        first = node.args[0] if node.args else None
        return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return ""


def _within(node: ast.AST, kind: Kind) -> Iterator[tuple[ast.AST, Kind]]:
    yield from _statements(ast.Module(body=[node], type_ignores=[]), kind)  # type: ignore[list-item]


def _named(node: ast.AST, by: str, path: Path) -> Iterator[str]:
    if name := _by_name(node):
        yield name
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert isinstance(node, ast.ImportFrom)
    base = node.module or ""
    if node.level:
        parts = by.split(".") if path.name == "__init__.py" else by.split(".")[:-1]
        base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _module(name: str, known: Mapping[str, Path]) -> str:
    """The known module that an imported name is, or is in."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def room(module: str) -> str:
    """The room of a module: the folder or the loose file below its package. The package's own door is "" ."""
    return [*module.split("."), ""][1]


def floors(package: str, pyproject: Path = ROOT / "pyproject.toml") -> list[list[str]]:
    """Rooms by floor, the ground floor first, as the package's `layers` contract has them."""
    contracts = tomllib.loads(pyproject.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (found,) = (c for c in contracts if c["type"] == "layers" and c["containers"] == [package])
    return [[name.strip() for name in layer.split("|")] for layer in reversed(found["layers"])]


def upward(found: Iterable[Import], by_floor: list[list[str]]) -> list[Import]:
    """Imports of a room by one that stands below it, or beside it."""
    height = {name: i for i, names in enumerate(by_floor) for name in names}
    out = []
    for each in found:
        by, of = room(each.by), room(each.of)
        if by and of and by != of and height[of] >= height[by]:
            out.append(each)
    return out


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of more than one that can all be reached from each other (Tarjan 1972, without recursion)."""
    onward: dict[str, list[str]] = {}
    for by, of in edges:
        onward.setdefault(by, []).append(of)
        onward.setdefault(of, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    out = []
    for start in onward:
        work = [] if start in index else [(start, iter(onward[start]))]
        if work:
            index[start] = low[start] = len(index)
            stack.append(start)
        while work:
            node, rest = work[-1]
            for of in rest:
                if of not in index:
                    index[of] = low[of] = len(index)
                    stack.append(of)
                    work.append((of, iter(onward[of])))
                    break
                if of in stack:
                    low[node] = min(low[node], index[of])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    group, stack[at:] = stack[at:], []
                    out += [sorted(group)] if len(group) > 1 else []
    return sorted(out)


def circles_of(found: Iterable[Import], *, rooms: bool = False) -> list[list[str]]:
    """Circles among modules as they run (types alone left out), or among rooms, where types count too."""
    found = list(found)
    if rooms:
        pairs = {(room(i.by), room(i.of)) for i in found}
        return circles((by, of) for by, of in pairs if by and of and by != of)
    return circles((i.by, i.of) for i in found if i.kind != "type")


def loose(folder: Path) -> list[str]:
    """Files at the top of a package, beside its rooms."""
    return sorted(path.name for path in folder.glob("*.py"))


# --- the picture ------------------------------------------------------------------------------------------------------
STOREYS: Mapping[str, list[tuple[str, list[str]]]] = {
    "jade_graph": [
        ("words", ["types", "errors", "plugins", "private", "sync"]),
        ("means", ["settings", "backbones", "data", "retrieval"]),
        ("one run", ["workflow"]),
        ("runs, and their worth", ["runs", "scoring", "feedback", "judging", "patching", "microworld", "rollouts"]),
        ("versions", ["registry", "versions", "assembly", "backup", "gate"]),
        ("the front door", ["langchain"]),
        ("from outside", ["picture", "telemetry", "serve", "studio", "testing", "bench"]),
        ("the command", ["cli"]),
    ],
    "jade_training": [
        ("one update", ["learner"]),
        ("of several, one", ["merging"]),
        ("what is right", ["supervised", "pretrain"]),
        ("how much of what", ["mixing"]),
        ("what was recorded", ["offline", "improve", "real"]),
        ("what finds", ["encoders"]),
        ("experiments", ["compare", "bench"]),
        ("the commands", ["cli"]),
    ],
}
"""The floors as people see them: some of the linter's layers side by side, the ground floor first."""
GROUND = "words"
_W, _H, _GAP, _RISE, _LEFT = 104, 36, 18, 84, 150
_INK, _FAINT, _BOX, _LINE = "#1f2933", "#c3ccd5", "#eef2f6", "#5b7083"


def arrows(package: str) -> dict[tuple[str, str], int]:
    """From room to room: how many of its modules import any of the other's, types left out."""
    pairs: dict[tuple[str, str], set[str]] = {}
    for each in imports(modules(package, PACKAGES[package])):
        by, of = room(each.by), room(each.of)
        if by and of and by != of and each.kind != "type":
            pairs.setdefault((by, of), set()).add(each.by)
    return {pair: len(who) for pair, who in sorted(pairs.items())}


def _reduced(pairs: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Without arrows that a longer way says too, so that the picture can be read."""
    onward: dict[str, set[str]] = {}
    for by, of in pairs:
        onward.setdefault(by, set()).add(of)

    def reaches(start: str, goal: str) -> bool:
        seen, work = set[str](), [n for n in onward.get(start, ()) if n != goal]
        while work:
            node = work.pop()
            if node == goal:
                return True
            if node not in seen:
                seen.add(node)
                work += onward.get(node, ())
        return False

    return {pair: n for pair, n in pairs.items() if not reaches(*pair)}


def _curve(a: tuple[float, float], b: tuple[float, float], out: float) -> str:
    """A way that leaves `a` by `out` (down is positive) and comes to `b` from above."""
    return f"M{a[0]:.0f},{a[1]:.0f} C{a[0]:.0f},{a[1] + out:.0f} {b[0]:.0f},{b[1] - 30:.0f} {b[0]:.0f},{b[1]:.0f}"


def svg(package: str) -> str:
    """A box a room, floors as rows, an arrow where one room imports another.

    Left out: arrows that a longer way says too, and those to the ground floor, whose words every room speaks.
    """
    storeys = STOREYS[package]
    ground = dict(storeys).get(GROUND, [])
    shown = [pair for pair in _reduced(arrows(package)) if pair[1] not in ground]
    widest = max(len(names) for _, names in storeys)
    wide = _LEFT + widest * (_W + _GAP) + _GAP
    tall = len(storeys) * _RISE + 14
    place: dict[str, tuple[float, float]] = {}
    back, lines, boxes = [], [], []
    for i, (title, names) in enumerate(reversed(storeys)):
        y = 14 + i * _RISE + (_RISE - _H) / 2
        x = _LEFT + (wide - _LEFT - len(names) * (_W + _GAP) + _GAP) / 2
        back.append(
            f'<rect x="8" y="{14 + i * _RISE + 5:.0f}" width="{wide - 16:.0f}" height="{_RISE - 10}" class="floor"/>'
        )
        back.append(f'<text x="22" y="{y + _H / 2 + 4:.0f}" class="title">{html.escape(title)}</text>')
        for name in names:
            place[name] = (x, y)
            x += _W + _GAP
    for by, of in shown:
        (x1, y1), (x2, y2) = place[by], place[of]
        if y1 == y2:  # on one floor, from the right to the left
            near = x1 - x2 <= _W + _GAP
            a, b = (x1, y1 + _H / 2), (x2 + _W + 3, y2 + _H / 2)
            way = f"M{a[0]:.0f},{a[1]:.0f} L{b[0]:.0f},{b[1]:.0f}"
            if not near:
                a, b = (x1 + _W / 2, y1), (x2 + _W / 2, y2 - 2)
                way = _curve(a, b, -26)
        else:
            a, b = (x1 + _W / 2, y1 + _H), (x2 + _W / 2, y2 - 3)
            way = _curve(a, b, 30)
        lines.append(f'<path d="{way}"><title>{by} imports {of}</title></path>')
    for name, (x, y) in place.items():
        boxes.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{_W}" height="{_H}" rx="4" class="box"/>'
            f'<text x="{x + _W / 2:.0f}" y="{y + 22:.0f}" class="room">{html.escape(name)}</text>'
        )
    style = (
        f"text{{font-family:system-ui,sans-serif;fill:{_INK}}}.title{{font-size:12px;fill:{_LINE}}}"
        ".room{text-anchor:middle;font-size:13px;font-weight:600}"
        f".box{{fill:{_BOX};stroke:{_LINE}}}.floor{{fill:#fafbfc;stroke:{_FAINT}}}"
        f"path{{fill:none;stroke:{_LINE};stroke-opacity:.6;marker-end:url(#to)}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {tall:.0f}" width="{wide:.0f}" '
        f'height="{tall:.0f}" role="img" aria-label="Rooms of {package} and who imports whom">'
        f'<defs><marker id="to" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto" '
        f'markerUnits="userSpaceOnUse"><path d="M0,0 L8,4 L0,8 z" style="fill:{_LINE};stroke:none;marker-end:none"/>'
        f"</marker></defs><style>{style}</style>"
        f'<rect width="{wide:.0f}" height="{tall:.0f}" style="fill:#fff;stroke:none"/>'
    )
    return "\n".join([head, *back, *lines, *boxes, "</svg>\n"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="draw the pictures in docs/img anew")
    parser.add_argument("--arrows", action="store_true", help="list every import between rooms")
    options = parser.parse_args()
    bad = 0
    for package, folder in PACKAGES.items():
        found = imports(modules(package, folder))
        told = circles_of(found)
        print(f"{package}: {len(modules(package, folder))} modules, {len(found)} imports of each other")
        print(f"  loose files: {', '.join(loose(folder))}")
        if package != "jade_nodes":
            up = upward(found, floors(package))
            told += circles_of(found, rooms=True)
            print(f"  rooms: {sum(map(len, floors(package)))}; imports of an upper room: {len(up)}")
            for each in up:
                print(f"    {each}")
            bad += len(up)
        print(f"  circles: {len(told)}")
        for group in told:
            print(f"    {' <-> '.join(group)}")
        bad += len(told)
        if options.arrows and package != "jade_nodes":
            for (by, of), n in arrows(package).items():
                print(f"  {by} -> {of} ({n})")
    for package, picture in PICTURES.items() if options.write else ():
        picture.write_text(svg(package), "utf-8")
        print(f"wrote {picture.relative_to(ROOT)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
