"""A project folder that was moved or copied: its database still names the old place.

Invariant: files are looked for relative to the database first, so nothing is read from, or written to, a place that the
registry only remembers. Nothing but addresses is changed, and only those below the remembered root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from jade_graph.errors import RegistryError

if TYPE_CHECKING:
    from jade_graph.registry.place import Place

# Where MLflow's database keeps addresses of files, as (table, column).
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("model_version_tags", "value"),
    ("trace_tags", "value"),
)


def path_of(uri: str) -> Path:
    """The path that a `file:` address names."""
    from urllib.request import url2pathname

    path = unquote(urlparse(uri).path)
    return Path(url2pathname(path) if os.name == "nt" else path)


def here(place: Place, uri: str) -> Path:
    """Where the files behind a `file:` address are: below the registry's own root, where they are there."""
    recorded = path_of(uri)
    if place.artifacts is None:
        return recorded
    root, parts = path_of(place.artifacts), recorded.parts
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] == root.name:
            moved = root.joinpath(*parts[at + 1 :])
            if moved.exists():
                return moved
    return recorded


def remembered_root(place: Place, location: str, model: str) -> str | None:
    """The root of the artifacts as the database remembers it, where that is another than the registry's own.

    Args:
        location: of the model's experiment.
    """
    if place.artifacts is None or not location.startswith("file:"):
        return None
    old = path_of(location)
    if old.name != model or old.parent.name != path_of(place.artifacts).name or _same(old.parent, place):
        return None
    return location.rstrip("/").rpartition("/")[0]


def _same(old: Path, place: Place) -> bool:
    root = path_of(str(place.artifacts))
    return old == root or (old.exists() and root.exists() and old.samefile(root))


def require_here(place: Place, location: str, model: str) -> None:
    """Raises `RegistryError` REGISTRY_MOVED: what would be stored now would go to the old place."""
    old = remembered_root(place, location, model)
    if old is not None:
        raise RegistryError(
            f"the registry {place.shown!r} was moved: it would write to {str(path_of(old))!r}.",
            code="REGISTRY_MOVED",
            hint="jade registry relocate",
        )


def relocate(place: Place, old: str) -> int:
    """Put the registry's own root in the place of `old` in every address of the database; how many were changed.

    Raises:
        RegistryError: REGISTRY_BUSY, REGISTRY_UNREACHABLE.
    """
    import sqlalchemy as sa

    new, changed = str(place.artifacts), 0
    with place.locked("relocating"), place.asking():
        engine = sa.create_engine(place.uri)
        try:
            with engine.begin() as connection:
                known = sa.inspect(connection)
                tables = set(known.get_table_names())
                for name, column in _ADDRESSES:
                    if name not in tables or column not in {c["name"] for c in known.get_columns(name)}:
                        continue
                    changed += _changed(connection, sa.table(name, sa.column(column)), column, old, new)
        finally:
            engine.dispose()
    return changed


def _changed(connection: Any, table: Any, column: str, old: str, new: str) -> int:
    import sqlalchemy as sa

    address = table.c[column]
    below = sa.func.substr(address, 1, len(old) + 1) == f"{old}/"
    moved = sa.literal(new).concat(sa.func.substr(address, len(old) + 1))
    return int(connection.execute(sa.update(table).where(below).values({column: moved})).rowcount)
