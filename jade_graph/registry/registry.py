"""`Registry`: versions of the backbone in MLflow, and which of them is champion.

Invariant: what is visible under an alias is complete and was checked. A version appears only after all of its files
are stored; the champion changes only by an entry of the promotion log that was written first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jade_graph.registry.versions import MODEL, Kind, ModelVersion, Promotion


class Registry:
    """The registered versions of one model.

    Args:
        uri: MLflow tracking URI: `sqlite:///file.db` or `http://host:5000`; None: what the setting `registry.url`
            names, else mlflow.db in the project's data folder, with the artifacts beside it.
        model: name of the registered model.
        data_dir: the project's data folder, where fetched versions are kept; None: the setting `data_dir`.
    """

    def __init__(self, uri: str | None = None, *, model: str = MODEL, data_dir: Path | None = None) -> None:
        self.uri = uri
        self.model = model
        self.data_dir = data_dir

    def register(
        self,
        path: str | Path,
        *,
        manifest: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        parents: tuple[str, ...] = (),
        tags: Mapping[str, str] | None = None,
        challenger: bool = True,
    ) -> ModelVersion:
        """Check a model folder (or LoRA adapter) and register it; the same model twice gives the same version."""
        raise NotImplementedError

    def versions(self) -> list[ModelVersion]:
        """All versions, the newest first."""
        raise NotImplementedError

    def get(self, reference: str | int) -> ModelVersion:
        """3, "3", "champion", "models:/jade-backbone@champion" or "models:/jade-backbone/3"."""
        raise NotImplementedError

    def current(self, alias: str = "champion") -> int | None:
        """The number behind an alias, None where nobody has it. One short query, for polling."""
        raise NotImplementedError

    def fetch(self, reference: str | int) -> tuple[ModelVersion, Path]:
        """A version with a local folder that `HFBackbone.load` opens, its files checked against their hashes."""
        raise NotImplementedError

    def promote(
        self,
        reference: str | int,
        *,
        expected: int | None = None,
        kind: Kind = "promote",
        reason: str = "",
        summary: str = "",
        evidence: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Promotion:
        """Make a version the champion, if `expected` is the champion still. Logged; no evaluation is made here."""
        raise NotImplementedError

    def rollback(self, *, reason: str = "") -> Promotion:
        """Back to the champion before this one; again: further back. Logged, not evaluated."""
        raise NotImplementedError

    def history(self) -> list[Promotion]:
        """The promotion log, the newest first."""
        raise NotImplementedError
