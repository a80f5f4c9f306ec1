"""Reads what packages bring, and what a module says of itself, without importing it.

Invariant: no code of the module or of its parents runs; what cannot be found is "".
"""

from __future__ import annotations

import ast
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path


def entries(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name. More than one under a name is a conflict: the last is used."""
    out: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        out.setdefault(entry.name, []).append(entry)
    return dict(sorted(out.items()))


def owner(entry: EntryPoint) -> str:
    """The package that brings an entry point."""
    return entry.dist.name if entry.dist else "?"


def summary(module: str) -> str:
    """First sentence of a module's docstring; "" where it has none or cannot be found."""
    path = _file(module)
    if path is None:
        return ""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return ""
    first = " ".join(docstring.partition("\n\n")[0].split())
    return first if first.endswith(".") or not first else f"{first}."


def listed(module: str, name: str) -> tuple[str, str]:
    """Panel and line of help of a command NAME: what its module says in the constant `LISTED`, else "" and its summary.

    `LISTED` is a literal: `{"NAME": ("PANEL", "One line of help.")}`.
    """
    path = _file(module)
    try:
        body = ast.parse(path.read_text("utf-8")).body if path else []
        for line in body:
            if isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "LISTED" for t in line.targets):
                panel, told = ast.literal_eval(line.value)[name]
                return str(panel), str(told)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        pass
    return "", summary(module)


def _file(module: str) -> Path | None:
    top, *rest = module.split(".")
    spec = PathFinder.find_spec(top)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
