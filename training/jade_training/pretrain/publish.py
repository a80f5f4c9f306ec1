"""From a trained folder to a bundle: measure it on worlds it never saw, and write its card.

Invariant: what is measured is the folder as it would be shipped, loaded like any other model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jade_training.pretrain.card import render_card
from jade_training.pretrain.measure import Settings, measure, size_of


def publish(
    folder: Path,
    trained: Mapping[str, Any],
    *,
    settings: tuple[Settings, ...] = (Settings("validation"), Settings("test")),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure the model in `folder` and write `README.md` and `figures.json` there. Returns the figures."""
    from jade_graph.backbones import load_backbone

    backbone = load_backbone(str(folder))

    async def run() -> list[dict[str, Any]]:
        try:
            return [await measure(backbone, s, progress=progress) for s in settings]
        finally:
            await backbone.aclose()

    measured = asyncio.run(run())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    about = {
        "size_mb": size_of(folder) / 1e6,
        "vocabulary": config["vocab_size"],
        "context": config["max_position_embeddings"],
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
    }
    figures = {"trained": dict(trained), "measured": measured}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render_card(trained, about, measured), encoding="utf-8")
    return figures
