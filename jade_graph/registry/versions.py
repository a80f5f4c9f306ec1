"""The registry's words: a registered version and an entry of the promotion log.

Invariant: plain values, read once from the registry; nothing here talks to it, and nothing changes after it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL = "jade-backbone"

Kind = Literal["promote", "force", "first", "rollback"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered backbone.

    Attributes:
        name: of the registered model.
        number: counts from 1; never given twice.
        content: `jade_graph.backbones.folders.content_version` of the folder that `Registry.fetch` gives: what runs of
            this version record as `backbone_version`.
        digest: SHA-256 over all files of the model (weights, tokenizer, settings; value head); equal for equal models.
        aliases: names that point at it now.
        created: when it was registered, UTC.
        tags: as MLflow holds them.
        metrics: figures it was registered with, e.g. "f1".
    """

    name: str
    number: int
    content: str
    digest: str = ""
    aliases: tuple[str, ...] = ()
    created: datetime = datetime.min
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """`models:/jade-backbone/3`: what `--backbone` and MLflow take."""
        return f"models:/{self.name}/{self.number}"

    @property
    def weights(self) -> str:
        """The hash of the weights alone: the part of `content` after the `@`."""
        return self.content.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Promotion:
    """One entry of the promotion log: the alias `champion` went from one version to another.

    Attributes:
        number: place in the log; grows.
        kind: "promote" (the gate passed), "first" (there was no champion), "force" (past the gate), "rollback".
        when: UTC.
        who: user@host.
        from_version: the champion before; None where there was none.
        to_version: the champion since.
        reason: why, where somebody said so; always there for "force".
        run_id: MLflow run that holds evidence, verdict and manifest as artifacts.
        summary: the verdict in one line.
        evidence: figures of the verdict, by rule.
    """

    number: int
    kind: Kind
    when: datetime
    who: str
    from_version: int | None
    to_version: int
    reason: str = ""
    run_id: str = ""
    summary: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
