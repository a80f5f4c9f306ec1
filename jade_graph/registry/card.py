"""The README.md of a registered version: a model card.

Invariant: every figure on the card is taken from the manifest; what is not known is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jade_graph.settings.manifest import flattened

_HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- jade-graph
- reinforcement-learning
- retrieval-augmented-generation
{base}---
"""


def card(name: str, manifest: Mapping[str, Any]) -> str:
    """The card of a version that is registered with this manifest (see `registering.describe`)."""
    model = manifest["model"]
    base = f"base_model: {json.dumps(model['base'])}\n" if model.get("base") else ""
    if model.get("kind") == "encoder":
        return _of_encoder(name, manifest)
    what = "a LoRA adapter on a base model" if model.get("base") else "a causal language model"
    facts = [
        ("content", model["content"]),
        ("digest", model["digest"]),
        ("architecture", model.get("architecture")),
        ("parameters", model.get("parameters")),
        ("base", model.get("base")),
        ("prompt profile", model.get("profile")),
        ("value head", "in `value_head/`, for the learner alone" if model.get("value_head") else None),
        ("parents", ", ".join(manifest.get("parents") or ())),
        ("registered", manifest.get("time")),
        ("jade", manifest.get("jade")),
        ("commit", manifest.get("commit")),
        ("seeds", ", ".join(map(str, manifest.get("seeds") or ()))),
    ]
    parts = [
        _HEAD.format(base=base),
        f"# {name}",
        f"The shared backbone of a JADE Graph's roles: {what}, in `model/` as safetensors. It plays planner and "
        "executors by prompts of the profile below.",
        _table(("", ""), facts),
        *_merged(manifest.get("merge")),
        *_section("Figures it was registered with", manifest.get("metrics")),
        *_section("Learned from", manifest.get("data")),
        *_section("Hyper-parameters", manifest.get("hyperparameters")),
        *_section("Packages", manifest.get("packages")),
        "## Using it",
        f"```\njade ask QUESTION --backbone models:/{name}@champion\n```",
        "Whether it is the champion, and what it was compared with, is in the promotion log: `jade history`. The whole "
        "record is `manifest.json`; `files.json` has the SHA-256 of every file.",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _of_encoder(name: str, manifest: Mapping[str, Any]) -> str:
    model = manifest["model"]
    facts = [
        ("content", model["content"]),
        ("digest", model["digest"]),
        ("architecture", model.get("architecture")),
        ("parameters", model.get("parameters")),
        ("made from", (manifest.get("start") or {}).get("encoder")),
        ("registered", manifest.get("time")),
        ("jade", manifest.get("jade")),
        ("seeds", ", ".join(map(str, manifest.get("seeds") or ()))),
    ]
    parts = [
        _HEAD.format(base="").replace("transformers", "sentence-transformers").replace(
            "text-generation", "sentence-similarity"
        ).replace("- reinforcement-learning\n", ""),
        f"# {name}",
        "The text encoder of a JADE Graph's corpora, in `model/` as safetensors: it retrieves, and reranks by a "
        "listwise prompt (E2Rank). `jade_encoder.json` says how it pools and how long its prompts are.",
        _table(("", ""), facts),
        *_section("Figures it was registered with", manifest.get("metrics")),
        *_section("Learned from", manifest.get("data")),
        *_section("Hyper-parameters", manifest.get("hyperparameters")),
        "## Using it",
        f"```\njade index PATH --corpus NAME --encoder models:/{name}@champion\n```",
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _merged(merge: Mapping[str, Any] | None) -> list[str]:
    """Of a linear combination: its parents, and what each weighs."""
    if not merge:
        return []
    rows = [(f"{p['name']}: {p['content']}", f"{p['coefficient']:.6g}") for p in merge["parents"]]
    return [f"## Merged ({merge['decay']})", _table(("parent", "weighs"), rows)]


def _section(title: str, values: Mapping[str, Any] | None) -> list[str]:
    return [f"## {title}", _table(("", ""), sorted(flattened(values)))] if values else []


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [head, ("---", "---"), *((key, value) for key, value in rows if value not in (None, "", [], {}))]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
