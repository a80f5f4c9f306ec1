"""How a staged bundle becomes a version.

Invariant: the order decides. Files first, then one row that makes the version visible with all of its tags, then the
alias; killed at any point, what is visible is whole, and what is left behind is a stored model that no version names,
or an alias that the row's tag still asks for: registering again sets it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.codec import read_json
from jade_graph.backbones.folders import content_version, count_parameters
from jade_graph.errors import RegistryError
from jade_graph.registry import adapters, checking
from jade_graph.registry import bundle as bundles
from jade_graph.registry.card import card
from jade_graph.registry.promotions import who
from jade_graph.registry.versions import CHALLENGER, CHAMPION, ModelVersion
from jade_graph.settings.manifest import flattened, manifest
from jade_graph.settings.plain import jsonable

if TYPE_CHECKING:
    from jade_graph.registry.candidates import Source
    from jade_graph.registry.registry import Registry

_TOLD = {
    "backbone": "Backbones of a JADE Graph: jade versions, jade history.",
    "encoder": "Text encoders of a JADE Graph's corpora: jade encoders list.",
}
OWED = "jade.owed_alias"  # on a version whose alias is not set yet


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked model, ready to be stored: what its tags and its manifest say."""

    tags: Mapping[str, str]
    manifest: Mapping[str, Any]


def draft(
    registry: Registry,
    bundle: bundles.Bundle,
    source: Source,
    staging: Path,
    *,
    manifest: Mapping[str, Any] | None,
    metrics: Mapping[str, float] | None,
    parents: Iterable[str],
    base: str | None,
) -> Draft:
    """Check the model and describe it. Raises what `Registry.register` raises for a broken one."""
    served, adapter = bundle.model, {}
    if bundle.base is not None:
        named = base or bundle.base
        folder = adapters.base_folder(named)
        served = staging / registry.model
        checking.check_weights(bundle.model)
        adapters.merge(bundle.model, folder, served)
        adapter = {"jade.base": named, "jade.base_weights": adapters.weights_of(folder)}
    encoder = checking.check_kind(served, registry.holds)
    (checking.check_encoder if encoder else checking.check_model)(served)
    tokens = bundles.tokenizer_digest(served)
    lineage = tuple(dict.fromkeys([*parents, *source.parents]))
    _same_tokenizer(registry, lineage, tokens)
    content = bundles.content(served, registry.model)
    config = read_json(served / "config.json")
    about = {
        "content": content,
        "digest": bundle.digest,
        "architecture": ", ".join(config.get("architectures") or ()) or None,
        "parameters": count_parameters(served),
        "kind": "encoder" if encoder else None,
        "profile": None if encoder else _profile(served),
        "tokenizer": tokens,
        "base": adapter.get("jade.base"),
        "value_head": any(name.startswith(bundles.HEAD_DIR) for name in bundle.files),
        "folder": source.folder.name,
    }
    figures = {**source.metrics, **(metrics or {})}
    described = describe({**source.facts, **(manifest or {})}, about, figures, lineage)
    tags = {
        "jade.content": content,
        "jade.digest": bundle.digest,
        "jade.tokenizer": tokens,
        **({"jade.kind": "encoder"} if encoder else {"jade.profile": str(about["profile"])}),
        "jade.parents": " ".join(lineage),
        "jade.metrics": json.dumps(figures),
        # What runs recorded that used the folder itself, before it had a number.
        "jade.source_weights": content_version(source.folder).rpartition("@")[2],
        "jade.who": who(),
        **adapter,
    }
    (bundle.root / bundles.MANIFEST).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (bundle.root / bundles.CARD).write_text(card(registry.model, described), encoding="utf-8")
    return Draft(tags, described)


def describe(
    facts: Mapping[str, Any], model: Mapping[str, Any], metrics: Mapping[str, float], parents: Iterable[str]
) -> dict[str, Any]:
    """The manifest of a version: code, packages and machine of the registration, and what is known of the model."""
    own = manifest(seeds=facts.get("seeds") or ())
    extra = {key: value for key, value in facts.items() if value not in (None, {}, [], "")}
    out: dict[str, Any] = jsonable({**own, **extra, "model": model, "metrics": metrics, "parents": list(parents)})
    return out


def store(
    registry: Registry, bundle: bundles.Bundle, drafted: Draft, tags: Mapping[str, str], challenger: bool
) -> ModelVersion:
    """Store the files, then make the version visible."""
    place, client, experiment = registry.place, registry.place.client, registry.experiment()
    with place.asking():
        params = {key: str(value)[:500] for key, value in flattened(drafted.manifest.get("hyperparameters") or {})}
        model = client.create_logged_model(experiment, name=registry.model, tags=dict(drafted.tags), params=params)
        client.log_model_artifacts(model.model_id, str(bundle.root))
        client.finalize_logged_model(model.model_id, "READY")
        # The lock is held for what is short: two who register the same files at once get one version.
        with place.locked("registering"):
            known = registry.known(bundle.digest)
            if known is not None:
                client.delete_logged_model(model.model_id)
                return settle(registry, known)
            return _number(registry, model, {**tags, **drafted.tags}, challenger)


def _number(registry: Registry, model: Any, tags: Mapping[str, str], challenger: bool) -> ModelVersion:
    client, source = registry.place.client, model.artifact_location
    _make(registry)
    # MLflow's own database code looks a model id up in the process's default store: only a server is told it.
    named = {"model_id": model.model_id} if registry.place.served else {}
    owed = {OWED: CHALLENGER} if challenger else {}
    row = client.create_model_version(
        registry.model,
        source=source,
        tags={**tags, **owed, "jade.source": source, "jade.model_id": model.model_id},
        description=f"{tags['jade.content']}, {tags['jade.who']}",
        **named,
    )
    first = registry.known(tags["jade.digest"])
    if first is not None and first.number < int(row.version):
        # Another host was faster by a moment: no lock reaches there.
        client.delete_model_version(registry.model, row.version)
        return first
    return settle(registry, registry.get(int(row.version)))


def settle(registry: Registry, version: ModelVersion) -> ModelVersion:
    """Set the alias that a version was registered for, unless that was done: its writer may have been killed before.

    A version that others followed meanwhile does not take the alias from them, nor does one that became champion.
    """
    alias = version.tags.get(OWED)
    if not alias:
        return version
    client = registry.place.client
    with registry.place.asking():
        if registry.versions()[0].number == version.number and CHAMPION not in version.aliases:
            client.set_registered_model_alias(registry.model, alias, str(version.number))
        client.delete_model_version_tag(registry.model, str(version.number), OWED)
    return registry.get(version.number)


def mend(registry: Registry, version: ModelVersion, bundle: bundles.Bundle, tell: Callable[[str], None]) -> None:
    """Store the files of a version again where the stored ones are damaged; those of `bundle` are the same by hash."""
    try:
        with registry.shelf.bundle(version):
            return
    except RegistryError as error:
        if error.error_code == "REGISTRY_UNREACHABLE":
            raise
        tell(f"{error.message.rstrip('.')}; storing its files again")
    registry.experiment()  # refuses to write to the old place of a registry that was moved
    client = registry.place.client
    with registry.place.asking():
        client.log_model_artifacts(version.tags["jade.model_id"], str(bundle.root))
    with registry.shelf.bundle(version):
        pass  # whole now, or an error


def _make(registry: Registry) -> None:
    from mlflow.exceptions import MlflowException

    try:
        registry.place.client.create_registered_model(registry.model, description=_TOLD[registry.holds])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _same_tokenizer(registry: Registry, parents: Iterable[str], tokens: str) -> None:
    """A model that was made from a registered one keeps its tokenizer: its embedding means the same ids."""
    hashes = {parent.rpartition("@")[2] for parent in parents}
    if not hashes or not registry.place.made:
        return
    for version in registry.versions():
        other = version.tags.get("jade.tokenizer", "")
        if hashes & version.hashes and other and tokens and other != tokens:
            raise checking.mismatch(f"its parent, version {version.number}, has another vocabulary")


def _profile(folder: Path) -> str:
    from jade_graph.backbones.codec import Codec

    return Codec.from_folder(folder).profile
