"""Where a registry is: its MLflow URI, its artifacts, its lock, and the client that talks to it.

Invariant: whatever MLflow raises leaves this package as a `RegistryError` with a stable code; only local databases are
made on first use, and looking something up makes nothing.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jade_graph import private
from jade_graph.errors import RegistryError, UsageError, masked
from jade_graph.settings.config import load_config
from jade_graph.settings.fields import Settings

_TRACKING = "MLFLOW_TRACKING_URI"
_PATIENCE_S = 5.0
KNOWN = ("sqlite:///FILE", "postgresql://..", "http://HOST:PORT")
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def installed() -> bool:
    from importlib.util import find_spec

    return find_spec("mlflow") is not None


@dataclass(frozen=True)
class Place:
    """A registry's address.

    Attributes:
        uri: of MLflow, tracking and registry alike.
        data: the project's data folder: lock, fetched versions, and for SQLite the artifacts.
    """

    uri: str
    data: Path

    @classmethod
    def find(cls, uri: str | None = None, data_dir: Path | None = None, settings: Settings | None = None) -> Place:
        """The registry at `uri`, else the one of the settings, of MLFLOW_TRACKING_URI, or mlflow.db in the data folder.

        Raises:
            UsageError: REGISTRY_URI, for a file store, which MLflow refuses.
        """
        if settings is None and (uri is None or data_dir is None):
            settings = load_config().settings
        data = data_dir or (settings.data_path if settings else Path(".jade"))
        chosen = uri or (settings.registry.url if settings else None) or os.environ.get(_TRACKING)
        if chosen is None:
            # Absolute: the address must mean the same after the process changed its folder.
            chosen = f"sqlite:///{(data / 'mlflow.db').absolute()}"
        if not re.match(r"(?!file:)[a-z][a-z0-9+]*://", chosen):
            raise UsageError(
                f"{masked(chosen)!r} is no address of an MLflow registry: folders are refused by MLflow.",
                code="REGISTRY_URI",
                known=KNOWN,
                hint="leave it out for mlflow.db in the data folder",
            )
        if chosen.startswith("sqlite:///") and len(chosen) > len("sqlite:///"):
            chosen = f"sqlite:///{Path(chosen.removeprefix('sqlite:///')).absolute()}"
        return cls(chosen.rstrip("/") if chosen.startswith("http") else chosen, data.absolute())

    @property
    def served(self) -> bool:
        """Whether an MLflow server stands between: it then keeps the artifacts."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def file(self) -> Path | None:
        """The database file, of an SQLite registry."""
        name = self.uri.removeprefix("sqlite:///")
        return Path(name) if name != self.uri and name else None

    @property
    def artifacts(self) -> str | None:
        """Root of the artifacts; None where the server knows."""
        return None if self.served else (self.file.absolute().parent if self.file else self.data).as_uri() + "/mlflow"

    @property
    def lock(self) -> Path:
        return (self.file.absolute().parent if self.file else self.data) / "registry.lock"

    @property
    def made(self) -> bool:
        """Whether there is something to ask: a database file is made by the first registration."""
        return self.file is None or self.file.is_file()

    @property
    def shown(self) -> str:
        return masked(self.uri)

    @contextmanager
    def locked(self, what: str, seconds: float = 30.0) -> Iterator[None]:
        """Hold the project's registry lock; the system takes it back from a process that dies.

        Raises:
            RegistryError: REGISTRY_BUSY when another process keeps it for `seconds`.
        """
        from filelock import FileLock, Timeout

        private.folder(self.lock.parent)
        lock = FileLock(self.lock, timeout=seconds)
        try:
            lock.acquire()
        except Timeout as error:
            raise RegistryError(
                f"another process changes the registry {self.shown!r}: {what} waited {seconds:g} s for it.",
                code="REGISTRY_BUSY",
                hint="try again when it is done",
            ) from error
        try:
            yield
        finally:
            lock.release()

    @cached_property
    def client(self) -> Any:
        """The MLflow client. Makes a local database that is not there (seconds, once).

        Raises:
            RegistryError: REGISTRY_MISSING_PACKAGE, REGISTRY_UNREACHABLE.
        """
        if not installed():
            raise RegistryError(
                "versions need MLflow, which is not installed.",
                code="REGISTRY_MISSING_PACKAGE",
                hint="pip install 'jade-graph[registry]'",
            )
        self._reachable()
        if self.file is not None:
            private.folder(self.file.absolute().parent)
        # Nothing is sent anywhere, whatever MLflow's own default is.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Standard output is the command's own.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.file is None or self.file.is_file():
            return self._connected()
        # Two processes that make one database at once would each run MLflow's migrations.
        with self.locked("making the database", 120.0):
            if not self.file.is_file():
                self._make(self.file)
            return self._connected()

    def _make(self, file: Path) -> None:
        """Tables in a file beside it first: MLflow cannot go on with tables that a process which died made half of."""
        draft = file.with_name(f"{file.name}.making")
        for ending in ("", "-journal", "-wal", "-shm"):
            draft.with_name(draft.name + ending).unlink(missing_ok=True)
        private.file(draft)
        with _quiet(), self.asking():
            utils: Any = importlib.import_module("mlflow.store.db.utils")
            engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{draft}")
            try:
                utils._initialize_tables(engine)
            finally:
                engine.dispose()
        draft.replace(file)

    def _connected(self) -> Any:
        with _quiet(), self.asking():
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            client.search_registered_models(max_results=1)  # connects to the model registry too
            return client

    def _reachable(self) -> None:
        """A server that is away is told in seconds: MLflow itself would try for minutes."""
        if not self.served:
            return
        import httpx

        try:
            httpx.get(f"{self.uri}/health", timeout=_PATIENCE_S)
        except httpx.HTTPError as error:
            raise _unreachable(self.shown, error) from error

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Turn what MLflow, its database and the network raise into a `RegistryError`."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, RequestException) as error:
            raise _unreachable(self.shown, error) from error
        except MlflowException as error:
            if "API request to" in error.message or "HTTPConnectionPool" in error.message:
                raise _unreachable(self.shown, error) from error
            raise RegistryError(
                f"the registry {self.shown!r} refused: {masked(str(error.message))[:400]}",
                code="REGISTRY_FAILED",
                hint="see the message; mlflow server's own log tells more",
            ) from error

    def rows(self, model: str, *, tag: str) -> list[Any]:
        """MLflow's rows of a registered model, however many pages: those with a tag, which are ours and whole."""
        client = self.client
        found: list[Any] = []
        token = None
        with self.asking():
            while True:
                page = client.search_model_versions(f"name='{model}'", max_results=1000, page_token=token)
                found += [row for row in page if tag in row.tags]
                token = page.token
                if not token:
                    return found


def absent(error: Exception) -> bool:
    """Whether an MLflow error says that a model, version or alias is not there."""
    code = getattr(error, "error_code", "")
    return code in NOT_THERE or (code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower())


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's own tables use a loader that its SQLAlchemy calls old: nothing that a user could change."""
    from sqlalchemy.exc import SADeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SADeprecationWarning)
        yield


def _unreachable(uri: str, error: Exception) -> RegistryError:
    text = masked(str(error)).splitlines()[0][:200]
    return RegistryError(
        f"the registry {uri!r} does not answer: {type(error).__name__}: {text}",
        code="REGISTRY_UNREACHABLE",
        hint="start it (mlflow server ..), or check the setting registry.url",
    )
