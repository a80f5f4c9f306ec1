"""Versions of the text encoder: the same registry, under a name of its own, and tagged as encoders.

Invariant: an encoder that is named by an alias is opened as the version behind it, and calls itself by its number: what
a corpus remembers never changes its meaning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.registry.place import Place
from jade_graph.registry.registry import Registry, Tell
from jade_graph.registry.versions import ModelVersion
from jade_graph.retrieval.encoder import TransformerEncoder
from jade_graph.settings.fields import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODERS = "jade-encoder"


def encoders(settings: Settings) -> Registry:
    """The registry of encoders that the settings name."""
    place = Place.find(settings=settings)
    return Registry(place.uri, model=ENCODERS, data_dir=place.data, holds="encoder")


def register(registry: Registry, folder: Path, *, challenger: bool = True, tell: Tell | None = None) -> ModelVersion:
    """Register the folder of `jade train-encoder`, with what its manifest says. Raises as `Registry.register`."""
    facts = _facts(folder)
    metrics = {k: float(v) for k, v in (facts.pop("metrics", None) or {}).items() if isinstance(v, int | float)}
    return registry.register(folder, manifest=facts, metrics=metrics, challenger=challenger, tell=tell)


def opened(registry: Registry, reference: str | int, **options: Any) -> TransformerEncoder:
    """A registered encoder, its files checked. Raises as `Registry.fetch`."""
    version, folder = registry.fetch(reference)
    return TransformerEncoder(folder, spec=version.uri, name=version.name, **options)


def connect(rest: str, *, data_dir: str | Path | None = None, **options: Any) -> TransformerEncoder:
    """`models:/jade-encoder@champion` or `models:/jade-encoder/3` (entry-point group `jade.encoders`).

    Args:
        data_dir: the project's data folder; None: the setting.
    """
    registry = Registry(model=ENCODERS, data_dir=data_dir, holds="encoder")
    return opened(registry, f"models:{rest}", **options)


def _facts(folder: Path) -> dict[str, Any]:
    """What training wrote down, but what the registration says of itself."""
    try:
        found: Mapping[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kept = ("hyperparameters", "data", "seeds", "start", "metrics")
    facts = {key: found[key] for key in kept if key in found}
    return facts | {"made_with": {key: found[key] for key in ("jade", "commit", "time") if key in found}}
