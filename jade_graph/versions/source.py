"""Where versions come from, and how one is named.

Invariant: a reference names either a fixed version or an alias; only an alias is followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jade_graph.errors import UsageError

SCHEME = "models"
_REFERENCE = re.compile(r"/+(?P<name>[^/@\s]+)(?:@(?P<alias>[\w.-]+)|/(?P<number>[0-9]+))")


class VersionSource(Protocol):
    """What a reloader asks of a registry; `jade_graph.registry.Registry` is one. Both are called in its own thread."""

    def current(self, alias: str = "champion") -> int | None:
        """The number of the version behind an alias, None where nobody has it. Short: it is polled."""
        ...

    def fetch(self, reference: str | int) -> tuple[Any, Path]:
        """The version and a local folder that holds it whole. Raises `JadeError` for a version that is broken."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """`models:/NAME@ALIAS` (followed) or `models:/NAME/NUMBER` (fixed)."""

    name: str
    alias: str | None = None
    number: int | None = None

    def __str__(self) -> str:
        return f"{SCHEME}:/{self.name}@{self.alias}" if self.alias else f"{SCHEME}:/{self.name}/{self.number}"


def parse_reference(text: str) -> Reference:
    """Read `models:/NAME@ALIAS` or `models:/NAME/NUMBER`; the scheme may be left out.

    Raises:
        UsageError: VERSION_REFERENCE.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(f"{SCHEME}:"))
    if match is None:
        raise UsageError(
            f"{text!r} names no registered version.",
            code="VERSION_REFERENCE",
            known=["models:/jade-backbone@champion", "models:/jade-backbone/3"],
            hint="jade history",
        )
    number = match["number"]
    return Reference(match["name"], match["alias"], int(number) if number else None)
