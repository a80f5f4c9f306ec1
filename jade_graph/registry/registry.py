"""`Registry`: versions of the backbone in MLflow, and which of them is champion.

Invariant: what is visible under an alias is complete and was checked. A version appears only after all of its files
are stored; the champion changes only by an entry of the promotion log that was written first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jade_graph.config import Settings
from jade_graph.errors import RegistryError, UsageError
from jade_graph.registry import bundle as bundles
from jade_graph.registry import sources
from jade_graph.registry.place import Place, absent
from jade_graph.registry.promotions import Log, who
from jade_graph.registry.versions import ANY, CHALLENGER, CHAMPION, MODEL, Kind, ModelVersion, Promotion, Reference

Tell = Callable[[str], None]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_STAGING = ".staging-"


class Registry:
    """The registered versions of one model.

    Args:
        uri: MLflow's: `sqlite:///file.db`, `http://host:5000`; None: what the setting `registry.url` names, else
            MLFLOW_TRACKING_URI, else mlflow.db in the project's data folder, with the artifacts beside it.
        model: name of the registered model.
        data_dir: the project's data folder, where fetched versions are kept; None: the setting `data_dir`.

    Raises:
        UsageError: REGISTRY_URI, REGISTRY_NAME. Every method: RegistryError REGISTRY_MISSING_PACKAGE,
            REGISTRY_UNREACHABLE, REGISTRY_FAILED.
    """

    def __init__(self, uri: str | None = None, *, model: str = MODEL, data_dir: str | Path | None = None) -> None:
        if not _NAME.fullmatch(model):
            raise UsageError(
                f"{model!r} can name no registered model.", code="REGISTRY_NAME", hint="letters, digits, '.', '_', '-'"
            )
        self.place = Place.find(uri, None if data_dir is None else Path(data_dir))
        self.model = model
        self.log = Log(self.place, model)

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
            return Registry(self.uri, model=str(wanted.name), data_dir=self.place.data).get(reference)
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
        with self._bundle(version) as bundle:
            return dict(json.loads((bundle.root / bundles.MANIFEST).read_text(encoding="utf-8")))

    def fetch(self, reference: str | int) -> tuple[ModelVersion, Path]:
        """A version with a local folder that `HFBackbone.load` opens, its files checked against their hashes.

        Raises:
            UsageError: VERSION_REFERENCE.
            RegistryError: VERSION_UNKNOWN, VERSION_CORRUPT, WEIGHTS_TRUNCATED, WEIGHTS_NOT_FINITE, ADAPTER_BASE,
                ADAPTER_NEEDS_PEFT.
        """
        version = self.get(reference)
        with self._bundle(version) as bundle:
            folder = self._kept(version) / version.name
            if bundle.base is not None:
                return version, self._merged(version, bundle, folder)
            _link(bundle.model, folder)
        return version, folder

    def history(self) -> list[Promotion]:
        """The promotion log, the newest first."""
        return self.log.entries()

    def evidence(self, promotion: Promotion) -> dict[str, Path]:
        """The artifacts of a log entry by name: verdict.json, policy.toml, champion.jsonl, challenger.jsonl, ..

        What a server holds is downloaded into the data folder.
        """
        if not promotion.run_id:
            return {}
        kept = self.place.data / "evidence" / promotion.run_id
        client = self.place.client
        with self.place.asking():
            uri = client.get_run(promotion.run_id).info.artifact_uri
        if uri.startswith("file:") and not self.place.served:
            folder = Path(_path_of(uri))
        else:
            if not kept.is_dir():
                self._get(uri, kept)
            folder = kept
        return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}

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
        """Check a model and register it; the same model twice gives the version that is there.

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
                MODEL_CHANGED, NOTHING_LEARNED, REGISTRY_BUSY.
        """
        from jade_graph.registry import registering

        tell = tell or (lambda _: None)
        source = sources.resolve(path)
        with self._staging() as staging:
            bundle = bundles.stage(source.folder, staging / "bundle")
            if self.place.made and (known := self._known(bundle.digest)) is not None:
                tell(f"{path} is version {known.number} already")
                return known
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
        """The id of the MLflow experiment of this model's versions and evidence; made on first use."""
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
            return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        return None if self.place.artifacts is None else f"{self.place.artifacts}/{self.model}"

    def _rows(self) -> list[Any]:
        client = self.place.client
        rows: list[Any] = []
        token = None
        with self.place.asking():
            while True:
                page = client.search_model_versions(f"name='{self.model}'", max_results=1000, page_token=token)
                rows += [row for row in page if "jade.digest" in row.tags]
                token = page.token
                if not token:
                    return rows

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

    def _known(self, digest: str) -> ModelVersion | None:
        """The oldest version with these files."""
        found = [version for version in self.versions() if version.digest == digest]
        return found[-1] if found else None

    def _kept(self, version: ModelVersion) -> Path:
        return self.place.data / "versions" / version.digest[:16]

    @contextmanager
    def _bundle(self, version: ModelVersion) -> Iterator[bundles.Bundle]:
        """The stored files, whole: those of a local store where they lie, those of another downloaded once."""
        reference = version.uri
        local = self._local(version)
        root = local or self._kept(version) / "bundle"
        if local is None and not root.is_dir():
            self._download(version, root)
        try:
            found = bundles.open_bundle(root, version.digest, reference)
        except RegistryError as error:
            if local is None:
                # A copy that went bad here is fetched anew; what is bad in the store stays so.
                shutil.rmtree(root, ignore_errors=True)
                self._download(version, root)
                found = self._opened(root, version, reference)
            else:
                _why(root, reference, error)
                raise
        yield found

    def _opened(self, root: Path, version: ModelVersion, reference: str) -> bundles.Bundle:
        try:
            return bundles.open_bundle(root, version.digest, reference)
        except RegistryError as error:
            _why(root, reference, error)
            raise

    def _local(self, version: ModelVersion) -> Path | None:
        source = version.tags.get("jade.source", "")
        return Path(_path_of(source)) if source.startswith("file:") and not self.place.served else None

    def _download(self, version: ModelVersion, root: Path) -> None:
        self._get(version.tags["jade.source"], root)

    def _get(self, uri: str, into: Path) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        with self._staging() as staging, self.place.asking():
            found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(staging), tracking_uri=self.uri)
            into.parent.mkdir(parents=True, exist_ok=True)
            _move_in(Path(found), into)

    def _merged(self, version: ModelVersion, bundle: bundles.Bundle, folder: Path) -> Path:
        """An adapter's base with the adapter merged in: made once, and again when it is not what it was."""
        from jade_graph.registry import adapters

        if (folder / "config.json").is_file() and bundles.content(folder, version.name) == version.content:
            return folder
        base = adapters.base_folder(version.tags["jade.base"])
        if (found := adapters.weights_of(base)) != version.tags["jade.base_weights"]:
            raise RegistryError(
                f"the base {version.tags['jade.base']!r} of {version.uri} has other weights now: {found}, not "
                f"{version.tags['jade.base_weights']}.",
                code="ADAPTER_BASE",
                hint="put the base back that the adapter was trained on",
            )
        with self._staging() as staging:
            made = staging / version.name
            adapters.merge(bundle.model, base, made)
            if bundles.content(made, version.name) != version.content:
                raise bundles.corrupt(version.uri, "base and adapter do not make the model that was registered")
            folder.parent.mkdir(parents=True, exist_ok=True)
            _move_in(made, folder)
        return folder

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A folder beside the fetched versions, gone at the end; those of killed processes are cleared away."""
        self.place.data.mkdir(parents=True, exist_ok=True)
        for left in self.place.data.glob(f"{_STAGING}*"):
            pid = left.name.removeprefix(_STAGING).partition("-")[0]
            if pid.isdigit() and int(pid) != os.getpid() and not _alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=self.place.data))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _why(root: Path, reference: str, error: RegistryError) -> None:
    """A damaged bundle: say what is the matter with its weights, where that can be seen."""
    from jade_graph.registry.checking import check_weights

    try:
        check_weights(root / bundles.MODEL_DIR)
    except RegistryError as seen:
        raise RegistryError(
            f"the stored version {reference} is damaged: {seen.message}",
            code=seen.error_code,
            hint=error.hint,
        ) from error


def _link(model: Path, folder: Path) -> None:
    """A folder of the model's own name, so that its content version is the registered one, with links to the files."""
    wanted = {path.name: path.resolve() for path in model.iterdir()}
    if folder.is_dir() and {p.name: p.resolve() for p in folder.iterdir()} == wanted:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=folder.parent))
    for name, path in wanted.items():
        try:
            (made / name).symlink_to(path)
        except OSError:  # Windows without the right to link
            shutil.copyfile(path, made / name)
    _move_in(made, folder)


def _move_in(made: Path, folder: Path) -> None:
    """Put a finished folder in its place; whoever came first with the same content wins."""
    if folder.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=folder.parent))
        with suppress(OSError):  # another process may just have done so
            os.replace(folder, old / "old")
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(made, folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(made, ignore_errors=True)


def _path_of(uri: str) -> str:
    from urllib.parse import unquote, urlparse
    from urllib.request import url2pathname

    return url2pathname(unquote(urlparse(uri).path)) if os.name == "nt" else unquote(urlparse(uri).path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


__all__ = ["ANY", "CHALLENGER", "Registry", "who"]
