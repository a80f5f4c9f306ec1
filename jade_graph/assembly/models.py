"""Which model the settings name, opened with the options that its kind takes.

Invariant: a model is opened by its name alone; what is registered is taken at the version that its alias points at,
and follows the alias only where asked to.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jade_graph.backbones import load_backbone
from jade_graph.backbones.named import NAMED, require_added
from jade_graph.settings.fields import Settings
from jade_graph.types import Backbone

MANY, FEW = 64, 8
SMALL = 20_000_000
"""Parameters up to which a CPU batches many runs faster than few."""


def open_backbone(settings: Settings, spec: str | None = None, *, follow: bool = False) -> Backbone:
    """The model that the settings name, with the options that its kind takes.

    Args:
        follow: let a registered one follow its alias once a graph is built on it.
    """
    name = placed(settings, spec or settings.backbone)
    options: dict[str, Any] = {}
    if not _scheme(name) or _scheme(name) in ("hf", "models"):
        auto = {"device": settings.device, "dtype": settings.dtype}
        options = {key: None if value == "auto" else value for key, value in auto.items()}
        options["max_batch"] = settings.batch_size
        if settings.profile != "auto":
            options["profile"] = settings.profile
        if _scheme(name) == "models":
            options |= _registered(settings, follow)
    elif _scheme(name) == "openai" and settings.api_key:
        options = {"api_key": settings.api_key}
    if settings.thought_tokens is not None and _scheme(name) in ("", "hf", "models", "openai"):
        options["thought_tokens"] = settings.thought_tokens
    return load_backbone(name, **options)


def placed(settings: Settings, name: str) -> str:
    """A named model as its folder; any other name as it is. Cheap: asked before anything else is opened.

    Raises `BackboneError` MODEL_NOT_ADDED.
    """
    if name in NAMED and not (Path(name) / "config.json").is_file():
        return str(require_added(name, settings.data_path))
    return name


def usual_concurrency(backbone: Backbone) -> int:
    """How many runs at once suit a model: many for a small one or a GPU; few where a core reads a large one for all.

    Runs share one machine, and each has its own deadline: 64 at once of a model of 135 M on two cores all miss theirs.
    """
    model: Any = getattr(backbone, "model", None)
    weights = list(model.parameters()) if hasattr(model, "parameters") else []
    if not weights or weights[0].device.type != "cpu":
        return MANY
    return MANY if sum(w.numel() for w in weights) < SMALL else FEW


def _registered(settings: Settings, follow: bool) -> dict[str, Any]:
    """What a registered backbone needs to know beside the model's own options."""
    from jade_graph.versions import Smoke

    about = settings.reload
    smoke = Smoke(legal=about.legal, f1=about.f1)
    if about.smoke is not None and follow:
        from jade_graph.data import load_dataset
        from jade_graph.retrieval.memory import MemoryRetriever

        asked = load_dataset(about.smoke)
        passages = MemoryRetriever(asked.passages) if asked.passages else None
        smoke = Smoke(tuple(asked.questions), passages, about.legal, about.f1)
    return {
        "registry": settings.registry.url,
        "data_dir": settings.data_path,
        "follow": follow,
        "poll_s": about.poll_s,
        "smoke": smoke,
    }


def _scheme(spec: str) -> str:
    match = re.match(r"([A-Za-z][\w+.-]+):", spec)
    return match[1] if match else ""
