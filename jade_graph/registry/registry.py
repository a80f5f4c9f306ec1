"""`Registry`: versions of the backbone in MLflow, and which of them is champion.

Invariant: what is visible under an alias is complete and was checked. A version appears only after all of its files
are stored; the champion changes only by an entry of the promotion log that was written first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jade_graph.errors import RegistryError, UsageError
from jade_graph.registry import bundle as bundles
from jade_graph.registry import candidates as sources
from jade_graph.registry import moved
from jade_graph.registry.place import Place, absent
from jade_graph.registry.promotions import Log
from jade_graph.registry.shelf import Shelf
from jade_graph.registry.versions import ANY, CHAMPION, MODEL, Kind, ModelVersion, Promotion, Reference
from jade_graph.settings.fields import Settings

Tell = Callable[[str], None]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")

_REFUSED = "jade.refused"  # of a champion: tries against it that the gate refused


class Registry:
    """The registered versions of one model.

    Args:
        uri: MLflow's: `sqlite:///file.db`, `http://host:5000`; None: what the setting `registry.url` names, else
            MLFLOW_TRACKING_URI, else mlflow.db in the project's data folder, with the artifacts beside it.
        model: name of the registered model.
        data_dir: the project's data folder, where fetched versions are kept; None: the setting `data_dir`.
        holds: what its versions are; the other kind is refused (`registry.encoders` has the registry of encoders).

    Raises:
        UsageError: REGISTRY_URI, REGISTRY_NAME. Every method: RegistryError REGISTRY_MISSING_PACKAGE,
            REGISTRY_UNREACHABLE, REGISTRY_FAILED.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        model: str = MODEL,
        data_dir: str | Path | None = None,
        holds: Literal["backbone", "encoder"] = "backbone",
    ) -> None:
        if not _NAME.fullmatch(model):
            raise UsageError(
                f"{model!r} can name no registered model.", code="REGISTRY_NAME", hint="letters, digits, '.', '_', '-'"
            )
        self.place = Place.find(uri, None if data_dir is None else Path(data_dir))
        self.model, self.holds = model, holds
        self.log, self.shelf = Log(self.place, model), Shelf(self.place)

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """The registry that the settings name."""
        place = Place.find(settings=settings)
        return cls(place.uri, model=settings.registry.model, data_dir=place.data)

    @property
    def uri(self) -> str:
        return self.place.uri

    # --- reading ------------------------------------------------------------------------------------------------------
    def versions(self) -> list[ModelVersion]:
        """All versions, the newest first."""
        if not self.place.made:
            return []
        aliases = self._aliases()
        return sorted((self._version(row, aliases) for row in self._rows()), key=lambda v: -v.number)

    def current(self, alias: str = CHAMPION) -> int | None:
        """The number behind an alias, None where nobody has it. One short query, for polling."""
        return self.log.champion(alias)

    def get(self, reference: str | int) -> ModelVersion:
        """3, "3", "champion", "models:/jade-backbone@champion" or "models:/jade-backbone/3".

        Raises:
            UsageError: VERSION_REFERENCE.
            RegistryError: VERSION_UNKNOWN, VERSION_FOREIGN (registered by something else).
        """
        wanted = Reference.parse(reference)
        if wanted.name not in (None, self.model):
            other = Registry(self.uri, model=str(wanted.name), data_dir=self.place.data, holds=self.holds)
            return other.get(reference)
        row = self._row(wanted) if self.place.made else None
        if row is None:
            aliases = self._aliases() if self.place.made else {}
            numbers = [str(v.number) for v in self.versions()][:10]
            known = [*numbers, *sorted(aliases)]
            raise RegistryError(
                f"there is no version {str(reference)!r} of {self.model} in {self.place.shown!r}.",
                code="VERSION_UNKNOWN",
                known=known,
                hint="jade versions lists them" if known else "jade register FOLDER makes the first",
            )
        if "jade.digest" not in row.tags:
            raise RegistryError(
                f"version {row.version} of {self.model} was not registered by jade: what it holds is not known.",
                code="VERSION_FOREIGN",
                hint="jade register FOLDER",
            )
        return self._version(row, self._aliases())

    def manifest(self, reference: str | int) -> dict[str, Any]:
        """What the version was registered with. Raises as `fetch`."""
        version = self.get(reference)
        with self.shelf.bundle(version) as bundle:
            return dict(json.loads((bundle.root / bundles.MANIFEST).read_text(encoding="utf-8")))

    def fetch(self, reference: str | int) -> tuple[ModelVersion, Path]:
        """A version with a local folder that `HFBackbone.load` opens, its files checked against their hashes.

        Raises:
            UsageError: VERSION_REFERENCE.
            RegistryError: VERSION_UNKNOWN, VERSION_CORRUPT, WEIGHTS_TRUNCATED, WEIGHTS_NOT_FINITE, ADAPTER_BASE,
                ADAPTER_NEEDS_PEFT.
        """
        version = self.get(reference)
        return version, self.shelf.folder(version)

    def history(self) -> list[Promotion]:
        """The promotion log, the newest first."""
        return self.log.entries()

    def evidence(self, promotion: Promotion) -> dict[str, Path]:
        """The artifacts of a log entry by name: verdict.json, policy.toml, champion.jsonl, challenger.jsonl, ..

        What a server holds is downloaded into the data folder.
        """
        if not promotion.run_id:
            return {}
        client = self.place.client
        with self.place.asking():
            uri = client.get_run(promotion.run_id).info.artifact_uri
        return self.shelf.artifacts(uri, f"evidence/{promotion.run_id}")

    # --- registering --------------------------------------------------------------------------------------------------
    def register(
        self,
        path: str | Path,
        *,
        manifest: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        parents: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        base: str | None = None,
        challenger: bool = True,
        tell: Tell | None = None,
    ) -> ModelVersion:
        """Check a model and register it; the same model twice gives the version that is there, mended if its stored
        files are damaged.

        Args:
            path: a Hugging Face folder, a LoRA adapter, the folder of a learning run (its best counts), or "tiny".
            manifest: facts on top of what is known: "data", "hyperparameters", "seeds", ..
            metrics: figures, e.g. {"f1": .31}.
            parents: content versions of the models it was made from.
            tags: further MLflow tags.
            base: of an adapter: its base, instead of the one that the adapter names.
            challenger: point the alias `challenger` at a version that is new.
            tell: called with a line about what goes on.

        Raises:
            BackboneError: BACKBONE_NOT_FOUND, BACKBONE_NO_SAFETENSORS, BACKBONE_LOAD, ADAPTER_LOAD ..
            RegistryError: WEIGHTS_TRUNCATED, WEIGHTS_NOT_FINITE, WEIGHTS_INCOMPLETE, TOKENIZER_MISMATCH,
                MODEL_CHANGED, NOTHING_LEARNED, REGISTRY_BUSY, REGISTRY_MOVED.
        """
        from jade_graph.registry import registering

        tell = tell or (lambda _: None)
        source = sources.resolve(path)
        with self.shelf.staging() as staging:
            bundle = bundles.stage(source.folder, staging / "bundle")
            if self.place.made and (known := self.known(bundle.digest)) is not None:
                tell(f"{path} is version {known.number} already")
                registering.mend(self, known, bundle, tell)
                if registering.OWED not in known.tags:
                    return known
                with self.place.locked("registering"):
                    return registering.settle(self, known)
            tell("checking the model")
            draft = registering.draft(
                self, bundle, source, staging, manifest=manifest, metrics=metrics, parents=parents, base=base
            )
            if not self.place.made:
                tell(f"making the registry {self.place.shown}")
            tell(f"storing {bundle.size / 1e6:,.1f} MB")
            return registering.store(self, bundle, draft, tags or {}, challenger)

    # --- promoting ----------------------------------------------------------------------------------------------------
    def promote(
        self,
        reference: str | int,
        *,
        expected: int | None = ANY,
        kind: Kind = "promote",
        reason: str = "",
        summary: str = "",
        evidence: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Promotion:
        """Make a version the champion. Logged; nothing is evaluated here: `jade_graph.gate.promote` does that.

        Args:
            expected: the champion that the decision was made against; the promotion is refused when it is another by
                now. `ANY`: whoever it is.
            kind: "promote" and "first" need `evidence`, "force" needs `reason`.
            evidence: figures of the verdict. files: artifacts of the entry, text by name.

        Raises:
            UsageError: PROMOTION_REASON, PROMOTION_EVIDENCE.
            RegistryError: VERSION_UNKNOWN, VERSION_CORRUPT .. (as `fetch`), PROMOTION_OUTDATED, PROMOTION_CONFLICT,
                PROMOTION_SAME, REGISTRY_BUSY.
        """
        if kind == "force" and not reason.strip():
            raise UsageError(
                "a promotion past the gate needs a reason.", code="PROMOTION_REASON", hint="--force --reason TEXT"
            )
        if kind in ("promote", "first") and not evidence:
            raise UsageError(
                "a promotion needs the gate's evidence.",
                code="PROMOTION_EVIDENCE",
                hint='jade promote VERSION measures it; kind="force" with a reason goes without',
            )
        return self._move(kind, reference, expected, reason, summary, evidence, files)

    def refusals(self, number: int) -> int:
        """How many tries against this champion the gate has refused."""
        with self.place.asking():
            told = self.place.client.get_model_version(self.model, str(number)).tags.get(_REFUSED, "0")
        return int(told) if told.isdecimal() else 0

    def refused(self, number: int) -> None:
        """Count a try against this champion that the gate has refused. Raises `RegistryError` REGISTRY_BUSY."""
        with self.place.locked("counting a refusal"):
            count = self.refusals(number) + 1
            with self.place.asking():
                self.place.client.set_model_version_tag(self.model, str(number), _REFUSED, str(count))

    def rollback(self, *, reason: str = "") -> Promotion:
        """Back to the champion before this one; again: further back. Logged, not evaluated.

        Raises:
            RegistryError: ROLLBACK_NOTHING, PROMOTION_OUTDATED, PROMOTION_CONFLICT, VERSION_CORRUPT ..
        """
        champion, to = self.current(), self.log.before()
        return self._move("rollback", to, champion, reason, f"back to version {to}", None, None)

    def _move(
        self,
        kind: Kind,
        reference: str | int,
        expected: int | None,
        reason: str,
        summary: str,
        evidence: Mapping[str, Any] | None,
        files: Mapping[str, str] | None,
    ) -> Promotion:
        # What cannot be fetched whole never becomes the champion.
        version, _ = self.fetch(reference)
        return self.log.move(
            kind, version, expected=expected, reason=reason, summary=summary, evidence=evidence, files=files,
            experiment=self.experiment(),
        )  # fmt: skip

    # --- parts --------------------------------------------------------------------------------------------------------
    def experiment(self) -> str:
        """The id of the MLflow experiment of this model's versions and evidence; made on first use.

        Raises `RegistryError` REGISTRY_MOVED: it is asked for where something is to be stored.
        """
        from mlflow.exceptions import MlflowException

        client = self.place.client
        with self.place.asking():
            found = client.get_experiment_by_name(self.model)
            if found is None:
                try:
                    return str(client.create_experiment(self.model, artifact_location=self._artifacts()))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = client.get_experiment_by_name(self.model)
            moved.require_here(self.place, str(found.artifact_location), self.model)
            return str(found.experiment_id)

    def relocate(self) -> int:
        """Mend a registry whose folder was moved or copied: its addresses name the new place; how many were changed.

        Raises:
            RegistryError: REGISTRY_BUSY.
        """
        if not self.place.made:
            return 0
        with self.place.asking():
            found = self.place.client.get_experiment_by_name(self.model)
        old = moved.remembered_root(self.place, str(found.artifact_location), self.model) if found else None
        return 0 if old is None else moved.relocate(self.place, old)

    def _artifacts(self) -> str | None:
        return None if self.place.artifacts is None else f"{self.place.artifacts}/{self.model}"

    def _rows(self) -> list[Any]:
        return self.place.rows(self.model, tag="jade.digest")

    def _row(self, wanted: Reference) -> Any:
        from mlflow.exceptions import MlflowException

        client = self.place.client
        with self.place.asking():
            try:
                if wanted.alias is not None:
                    return client.get_model_version_by_alias(self.model, wanted.alias)
                return client.get_model_version(self.model, str(wanted.number))
            except MlflowException as error:
                if absent(error):
                    return None
                raise

    def _aliases(self) -> dict[str, int]:
        """All aliases of the model: MLflow's own search returns versions without theirs."""
        from mlflow.exceptions import MlflowException

        client = self.place.client
        with self.place.asking():
            try:
                found = client.get_registered_model(self.model).aliases
            except MlflowException as error:
                if absent(error):
                    return {}
                raise
        return {alias: int(number) for alias, number in found.items()}

    def _version(self, row: Any, aliases: Mapping[str, int]) -> ModelVersion:
        number, tags = int(row.version), dict(row.tags)
        return ModelVersion(
            name=self.model,
            number=number,
            content=tags["jade.content"],
            digest=tags["jade.digest"],
            aliases=tuple(sorted(alias for alias, at in aliases.items() if at == number)),
            created=datetime.fromtimestamp(row.creation_timestamp / 1000, UTC),
            tags=tags,
            metrics=json.loads(tags.get("jade.metrics") or "{}"),
        )

    def known(self, digest: str) -> ModelVersion | None:
        """The oldest version with these files."""
        found = [version for version in self.versions() if version.digest == digest]
        return found[-1] if found else None
