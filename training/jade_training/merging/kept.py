"""The models that a learning run keeps on its way.

Invariant: a run's `models` holds whole models alone, each under the number of its step.
"""

from __future__ import annotations

from pathlib import Path

MODELS = "models"


def kept_models(run: Path) -> list[Path]:
    """The folders of a run's models, the oldest first."""
    return sorted((p for p in (run / MODELS).glob("*") if p.name.isdigit()), key=lambda p: int(p.name))
