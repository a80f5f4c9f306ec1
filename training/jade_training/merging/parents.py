"""What is merged: registered versions, model folders, or the models of a learning run, the oldest first.

Invariant: a parent is named by the hash of its weights; what is itself a merge is no checkpoint of a run and is not
taken by `--last`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jade_graph.backbones.codec import read_json
from jade_graph.backbones.folders import content_version
from jade_graph.backbones.lora import CONFIG, WEIGHTS
from jade_graph.errors import UsageError
from jade_graph.registry.candidates import STATE
from jade_graph.registry.versions import MERGE
from jade_training.merging.kept import kept_models

if TYPE_CHECKING:
    from jade_graph.registry import Registry
    from jade_graph.registry.versions import ModelVersion

LAST = 8
"""Models that are merged where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Parent:
    """One of the models that are merged.

    Attributes:
        name: how it was named: "version 3", or a folder.
        content: `content_version` of its weights: the lineage that the registry records.
        folder: Hugging Face folder; of an adapter its base with the adapter merged in.
        adapter, base: of a LoRA adapter: its folder, and its base's.
    """

    name: str
    content: str
    folder: Path
    adapter: Path | None = None
    base: Path | None = None

    @property
    def weights(self) -> str:
        """The hash alone."""
        return self.content.rpartition("@")[2]


def parents_of(registry: Registry, named: Sequence[str], last: int | None = None) -> list[Parent]:
    """The models behind names, the oldest first.

    Args:
        named: nothing or the name of a registered model: its last versions. The folder of a learning run, or of a
            supervised one that kept models: its last. Else versions ("3", "champion", "models:/..") and folders, in
            this order.
        last: how many (8), where more are found.

    Raises:
        UsageError: MERGE_EMPTY, MERGE_LAST. RegistryError: VERSION_UNKNOWN .. BackboneError: BACKBONE_NOT_FOUND ..
    """
    one = named[0] if len(named) == 1 else None
    if one is not None and ((Path(one) / STATE).is_file() or kept_models(Path(one))):
        return _of_run(Path(one), last or LAST)
    if not named or (one is not None and not Path(one).is_dir() and one == registry.model):
        return _newest(registry, last or LAST)
    if last is not None:
        raise UsageError(
            f"--last goes with a learning run or a model's name, and {len(named)} models are named.",
            code="MERGE_LAST",
            hint="name the models that are merged, or jade merge --last 8",
        )
    return [_named(registry, name) for name in named]


def _of_run(run: Path, last: int) -> list[Parent]:
    folders = kept_models(run)
    if not folders:
        raise UsageError(
            f"the learning run {str(run)!r} has no models yet: they are written when it evaluates.",
            code="MERGE_EMPTY",
            hint="jade improve .. --evaluate-every 1",
        )
    return [_of_folder(folder) for folder in folders[-last:]]


def _newest(registry: Registry, last: int) -> list[Parent]:
    found = [version for version in registry.versions() if MERGE not in version.tags][:last]
    if not found:
        raise UsageError(
            f"no version of {registry.model} is registered that could be merged.",
            code="MERGE_EMPTY",
            hint="jade register FOLDER, or the folder of a learning run: jade merge RUN",
        )
    return [_of_version(registry, version) for version in reversed(found)]


def _named(registry: Registry, name: str) -> Parent:
    if (Path(name).expanduser() / CONFIG).is_file() or (Path(name).expanduser() / "config.json").is_file():
        return _of_folder(Path(name).expanduser())
    return _of_version(registry, registry.get(name))


def _of_version(registry: Registry, version: ModelVersion) -> Parent:
    _, folder = registry.fetch(version.number)
    adapter = base = None
    if version.tags.get("jade.base"):
        from jade_graph.registry.adapters import base_folder

        base = base_folder(version.tags["jade.base"])
        with registry.shelf.bundle(version) as bundle:
            adapter = bundle.model  # a stored file: it stays where it is
    return Parent(f"version {version.number}", version.content, folder, adapter, base)


def _of_folder(folder: Path) -> Parent:
    if not (folder / CONFIG).is_file():
        return Parent(str(folder), content_version(folder), folder)
    from jade_graph.registry.adapters import base_folder

    base = base_folder(str(read_json(folder / CONFIG).get("base_model_name_or_path") or ""))
    # Its own hash: the merged model is not made for one that is merged as a change.
    return Parent(str(folder), content_version(folder), base, folder, base)


def common_base(parents: Sequence[Parent]) -> Path | None:
    """The base, where all are plain adapters of one: they are merged as what they change."""
    if not all(p.adapter is not None and p.base is not None and (p.adapter / WEIGHTS).is_file() for p in parents):
        return None
    bases = {content_version(p.base, "base") for p in parents if p.base is not None}
    return parents[0].base if len(bases) == 1 else None


__all__ = ["LAST", "Parent", "common_base", "parents_of"]
