"""Where the files of versions lie on this machine, checked whenever they are taken.

Invariant: a folder that is handed out is whole: it is made aside and moved to its place, and its files have the hashes
that were registered. A local store is read where it lies; what a server holds is downloaded once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jade_graph.errors import RegistryError
from jade_graph.registry import bundle as bundles
from jade_graph.registry import moved
from jade_graph.registry.place import Place
from jade_graph.registry.versions import ModelVersion

_STAGING = ".staging-"


class Shelf:
    """The files of one registry's versions."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def folder(self, version: ModelVersion) -> Path:
        """A Hugging Face folder of the version; its name is the model's, so that its content version is the registered
        one. Raises as `Registry.fetch`.
        """
        with self.bundle(version) as bundle:
            folder = self._kept(version) / version.name
            if bundle.base is not None:
                return self._merged(version, bundle, folder)
            _link(bundle, folder)
        return folder

    def artifacts(self, uri: str, kept: str) -> dict[str, Path]:
        """Files behind an artifact URI, by name; those of a server are kept in this folder of the project's data."""
        if uri.startswith("file:") and not self.place.served:
            folder = moved.here(self.place, uri)
        else:
            folder = self.place.data / kept
            if not folder.is_dir():
                self._get(uri, folder)
        return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}

    @contextmanager
    def bundle(self, version: ModelVersion) -> Iterator[bundles.Bundle]:
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

    @contextmanager
    def staging(self) -> Iterator[Path]:
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

    def _kept(self, version: ModelVersion) -> Path:
        return self.place.data / "versions" / version.digest[:16]

    def _opened(self, root: Path, version: ModelVersion, reference: str) -> bundles.Bundle:
        try:
            return bundles.open_bundle(root, version.digest, reference)
        except RegistryError as error:
            _why(root, reference, error)
            raise

    def _local(self, version: ModelVersion) -> Path | None:
        source = version.tags.get("jade.source", "")
        return moved.here(self.place, source) if source.startswith("file:") and not self.place.served else None

    def _download(self, version: ModelVersion, root: Path) -> None:
        self._get(version.tags["jade.source"], root)

    def _get(self, uri: str, into: Path) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        with self.staging() as staging, self.place.asking():
            found = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(staging), tracking_uri=self.place.uri
            )
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
        with self.staging() as staging:
            made = staging / version.name
            _link(bundle, staging / bundles.MODEL_DIR)
            adapters.merge(staging / bundles.MODEL_DIR, base, made)
            if bundles.content(made, version.name) != version.content:
                raise bundles.corrupt(version.uri, "base and adapter do not make the model that was registered")
            folder.parent.mkdir(parents=True, exist_ok=True)
            _move_in(made, folder)
        return folder


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


def _link(bundle: bundles.Bundle, folder: Path) -> None:
    """A folder of the model's own name, so that its content version is the registered one, with links to the files that
    were registered: whatever else lies beside them was never checked.
    """
    parts = [Path(name) for name in bundle.files]
    wanted = {p.name: (bundle.root / p).resolve() for p in parts if p.parent.as_posix() == bundles.MODEL_DIR}
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


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
