"""Models merged into a folder that loads, evaluates and registers as any other.

Invariant: parents share architecture, tokenizer and prompt profile; the folder has the weights' combination and, of all
else, the files of the parent that weighs most. What it was made of is said with it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jade_graph.backbones.codec import PROFILES, read_json
from jade_graph.backbones.contents import TEXT_FILES, require_whole
from jade_graph.errors import UsageError, unknown
from jade_graph.registry.bundle import tokenizer_digest
from jade_training.learner.value import FILE as VALUE_HEAD
from jade_training.merging.adapters import merge_adapters
from jade_training.merging.linear import merge_files
from jade_training.merging.parents import Parent, common_base

_OF_WRITING = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache", "unk_token_id"})
"""Of config.json: what says how it was written, or is the tokenizer's affair; what begins with "_" is so too."""
_ASIDE = frozenset({"figures.json", "manifest.json", "files.json", "trainer.json", "improve.json"})


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge was made of: `how` (the decay, or "coefficients"), and (name, content, coefficient) of each."""

    how: str
    parents: tuple[tuple[str, str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """As the tag `jade.merge` and the manifest hold it."""
        named = [{"name": name, "content": content, "coefficient": c} for name, content, c in self.parents]
        return {"decay": self.how, "parents": named}


def merge(
    parents: Sequence[Parent],
    coefficients: Sequence[float],
    into: Path,
    *,
    how: str = "coefficients",
    profile: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Merged:
    """Write sum_i c_i parent_i as a Hugging Face folder.

    Adapters of one base are merged as what they change; value heads are merged where all parents have one.

    Args:
        profile: of the merge's prompts, where the parents' may differ: a warm start and the pretrained model that it
            began from. None: they have one profile, and it has that.

    Raises:
        UsageError: MERGE_EMPTY, MERGE_COUNT, MERGE_SUM, MERGE_DIFFERS, MERGE_EXISTS, BACKBONE_PROFILE.
        BackboneError: ADAPTER_LOAD.
    """
    if profile is not None and profile not in PROFILES:
        raise unknown("prompt profile", profile, PROFILES, code="BACKBONE_PROFILE")
    if parents and len(parents) == len(coefficients):
        require_sum(coefficients)
    _require_alike(parents, profile)
    if (into / "config.json").exists():
        raise UsageError(
            f"there is a model in {str(into)!r}.",
            code="MERGE_EXISTS",
            hint="another --out folder: none is written over",
        )
    into.mkdir(parents=True, exist_ok=True)
    names = [parent.weights for parent in parents]  # what they are, however they were named
    base = common_base(parents) if parents else None
    if tell is not None:
        tell(f"merging {len(parents)} models" + (" as changes of one base" if base is not None else ""))
    if base is not None:
        adapters = [parent.adapter for parent in parents if parent.adapter is not None]
        merge_adapters(adapters, names, coefficients, base, into)
    else:
        merge_files(
            [require_whole(parent.folder) for parent in parents], names, coefficients, into / "model.safetensors"
        )
        heads = [parent.folder / VALUE_HEAD for parent in parents]
        if all(head.is_file() for head in heads):
            merge_files([[head] for head in heads], names, coefficients, into / VALUE_HEAD)
    first = max(range(len(parents)), key=lambda i: (coefficients[i], names[i]))
    for folder in (parents[first].folder, parents[first].adapter):
        for path in [p for pattern in TEXT_FILES for p in folder.glob(pattern)] if folder is not None else ():
            if path.name not in _ASIDE and path.name != "adapter_config.json" and not path.name.endswith("index.json"):
                shutil.copyfile(path, into / path.name)
    if profile is not None:
        about = {**read_json(into / "jade.json"), "profile": profile}
        (into / "jade.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return Merged(how, tuple((p.name, p.content, float(c)) for p, c in zip(parents, coefficients, strict=True)))


def require_sum(coefficients: Sequence[float]) -> None:
    """Weights whose coefficients do not sum to 1 are no model between the parents. Raises `UsageError` MERGE_SUM."""
    total = math.fsum(coefficients)
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise UsageError(
            f"the coefficients {', '.join(f'{c:g}' for c in coefficients)} sum to {total:g}.",
            code="MERGE_SUM",
            hint="coefficients that sum to 1, the oldest first",
        )


def _require_alike(parents: Sequence[Parent], profile: str | None) -> None:
    for other in parents[1:]:
        first = parents[0]
        for what, ours, theirs in (
            ("architecture", _config(first.folder), _config(other.folder)),
            ("tokenizer", tokenizer_digest(first.folder), tokenizer_digest(other.folder)),
            ("prompt profile", profile or _profile(first), profile or _profile(other)),
        ):
            if ours != theirs:
                names = f" ({_changed(ours, theirs)})" if isinstance(ours, dict) else ""
                raise UsageError(
                    f"{first.name} and {other.name} differ in their {what}{names}: their weights do not mean the same.",
                    code="MERGE_DIFFERS",
                    hint="--profile brief, say, whose prompts the merge is to read"
                    if what == "prompt profile"
                    else "merge versions that were trained from one model",
                )


def _config(folder: Path) -> dict[str, str]:
    config = read_json(folder / "config.json")
    return {
        key: json.dumps(value, sort_keys=True)
        for key, value in config.items()
        if key not in _OF_WRITING and key[:1] != "_"
    }


def _changed(ours: Any, theirs: Any) -> str:
    return ", ".join(sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)))


def _profile(parent: Parent) -> str | None:
    for folder in (parent.adapter, parent.folder):
        if folder is not None and (found := read_json(folder / "jade.json").get("profile")):
            return str(found)
    return None


__all__ = ["Merged", "merge", "require_sum"]
