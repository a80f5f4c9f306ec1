"""Load: `jade bench serve` for a minute at four times capacity, with disconnects; one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FULL, BLOCK = 1, 1


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del first, last, seed, folder
    from jade_graph.bench.serve import run

    return {f"serve_{name}": value for name, value in run().items()}


def broken(figures: dict[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in figures.items() if "unanswered" in name and value]
