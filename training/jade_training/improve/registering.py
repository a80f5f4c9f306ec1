"""What a learning run has to do with the registry: starts from a version, and becomes one.

Invariant: only the best weights of a finished learning run are registered, with what they learned from; a run that made
nothing better than its start registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_training.improve.inputs import folder_of

if TYPE_CHECKING:
    from jade_graph.registry import ModelVersion
    from jade_graph.settings.fields import Settings
    from jade_training.improve.improver import Improved

SCHEME = "models:"


def start_of(settings: Settings) -> Path:
    """The folder of the starting weights; a registered version is fetched, and stays the one that it was at the start.

    Raises what `folder_of` and `Registry.fetch` raise.
    """
    if not settings.backbone.startswith(SCHEME):
        return folder_of(settings.backbone)
    from jade_graph.registry import Registry

    _, folder = Registry.of(settings).fetch(settings.backbone)
    return folder


def register_best(
    settings: Settings, result: Improved, *, tell: Callable[[str], None] | None = None
) -> ModelVersion | None:
    """Register what a learning run made; None where its best is its start.

    Raises what `Registry.register` raises.
    """
    if result.best_iteration == 0:
        return None
    from jade_graph.registry import Registry

    facts: dict[str, Any] = {}
    if result.stopped is not None:
        facts["stopped"] = {"code": result.stopped.code, "why": result.stopped.message}
    return Registry.of(settings).register(result.folder, manifest=facts, tell=tell)
