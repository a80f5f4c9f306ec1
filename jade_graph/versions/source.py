"""Where versions come from.

Invariant: a reloader knows its registry by these two calls alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class VersionSource(Protocol):
    """What a reloader asks of a registry; `jade_graph.registry.Registry` is one. Both are called in its own thread."""

    def current(self, alias: str = "champion") -> int | None:
        """The number of the version behind an alias, None where nobody has it. Short: it is polled."""
        ...

    def fetch(self, reference: str | int) -> tuple[Any, Path]:
        """The version and a local folder that holds it whole. Raises `JadeError` for a version that is broken."""
        ...
