"""The registry's words: a registered version and an entry of the promotion log.

Invariant: plain values, read once from the registry; nothing here talks to it, and nothing changes after it was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from jade_graph.errors import UsageError

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL = "jade-backbone"
MERGE = "jade.merge"
"""Tag of a merged version: its decay and its parents with their coefficients, as JSON."""
ANY = -1
"""As `expected`: whatever the champion is."""

Kind = Literal["promote", "first", "force", "rollback"]
_URI = re.compile(r"models:/+(?P<name>[^/@\s]+)(?:@(?P<alias>[\w.-]+)|/(?P<number>[0-9]+))")
_ALIAS = re.compile(r"[A-Za-z][\w.-]*")


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
    created: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """`models:/jade-backbone/3`: what `--backbone` and MLflow take."""
        return f"models:/{self.name}/{self.number}"

    @property
    def merge(self) -> dict[str, Any] | None:
        """Of a merged version: {"decay": .., "parents": [{"name", "content", "coefficient"}, ..]}."""
        found: dict[str, Any] | None = json.loads(self.tags.get(MERGE) or "null")
        return found

    @property
    def parents(self) -> tuple[str, ...]:
        """Content versions of the models that it was made from."""
        return tuple(p for p in self.tags.get("jade.parents", "").split(" ") if p)

    @property
    def hashes(self) -> frozenset[str]:
        """Hashes of weights under which its runs are recorded: as registered, and as the folder it was made from."""
        return frozenset({self.weights, self.tags.get("jade.source_weights", "")} - {""})

    @property
    def made_from(self) -> str:
        """The parents in a few words."""
        merge = self.merge
        return f"{len(merge['parents'])} merged, {merge['decay']}" if merge else " ".join(self.parents)

    @property
    def weights(self) -> str:
        """The hash of the weights alone: the part of `content` after the `@`."""
        return self.content.rpartition("@")[2]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; tags and hashes of everything are left to MLflow."""
        return {
            "name": self.name, "number": self.number, "uri": self.uri, "content": self.content, "digest": self.digest,
            "aliases": list(self.aliases), "created": self.created.isoformat(timespec="seconds"),
            "parents": list(self.parents), "merge": self.merge,
            "profile": self.tags.get("jade.profile"), "base": self.tags.get("jade.base"), "metrics": dict(self.metrics),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Promotion:
    """One entry of the promotion log: the alias `champion` went from one version to another.

    Attributes:
        number: place in the log; grows, with gaps where an attempt was given up.
        kind: "promote" (the gate passed), "first" (there was no champion), "force" (past the gate), "rollback".
        when: UTC.
        who: user@host.
        from_version: the champion before; None where there was none.
        to_version: the champion since.
        reason: why, where somebody said so; always there for "force".
        run_id: MLflow run that holds evidence, verdict and manifest as artifacts; "" where there are none.
        summary: the verdict in one line.
        evidence: figures of the verdict.
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

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number, "kind": self.kind, "when": self.when.isoformat(timespec="seconds"), "who": self.who,
            "from": self.from_version, "to": self.to_version, "reason": self.reason, "run_id": self.run_id,
            "summary": self.summary, "evidence": dict(self.evidence),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody wrote for a version: a number or an alias, and the model where it was named."""

    number: int | None = None
    alias: str | None = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str | int) -> Reference:
        """3, "3", "champion", "models:/jade-backbone@champion" or "models:/jade-backbone/3".

        Raises:
            UsageError: VERSION_REFERENCE.
        """
        text = str(text)
        if text.isascii() and text.isdigit():
            return cls(number=int(text))
        if match := _URI.fullmatch(text):
            return cls(int(match["number"]) if match["number"] else None, match["alias"], match["name"])
        if _ALIAS.fullmatch(text):
            return cls(alias=text)
        raise UsageError(
            f"{text!r} names no registered version.",
            code="VERSION_REFERENCE",
            known=["3", "champion", "models:/jade-backbone@champion", "models:/jade-backbone/3"],
            hint="jade versions lists them",
        )
