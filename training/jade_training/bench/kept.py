"""Figures of a long benchmark, kept as they come, so that the same call goes on where it stopped.

Invariant: a line stands for a measurement that was made with the settings in the first line, and with no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_graph.errors import ConfigError
from jade_graph.settings.lines import Growing


class Kept:
    """Scores by name, one JSON line each.

    Args:
        path: of the file; None keeps them in memory alone.
        facts: the settings. Raises `ConfigError` BENCH_CHANGED where the file holds a run of others.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any]) -> None:
        changed = ConfigError(
            f"{str(path)!r} holds a benchmark of other settings.",
            code="BENCH_CHANGED",
            hint="another out=FOLDER: nothing is written over",
        )
        self._lines = Growing(path, facts, lambda _: changed)
        self._found: dict[str, dict[str, float]] = {row["name"]: row["scores"] for row in self._lines.rows}

    def get(self, key: Sequence[Any], make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The scores of that name: those kept, else those that `make` measures now."""
        name = " ".join(f"{x:.6f}" if isinstance(x, float) else str(x) for x in key)
        if name not in self._found:
            self._found[name] = make()
            self._lines.add({"name": name, "scores": self._found[name]})
        return dict(self._found[name])


__all__ = ["Kept"]
