"""Reading an export back.

Invariant: what comes back is what was written, or a typed error says why not: a newer schema, an unknown or a missing
column, files that are not those of the manifest. Nothing is guessed or left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError
from jade_graph.runs.export.schema import EXPORT_SCHEMA, KIND, arrow, arrow_schema, run_of, transitions_of
from jade_graph.runs.export.write import FILES, MANIFEST, content_hash, sha256
from jade_graph.types import SCHEMA_VERSION, Run, Transition


@dataclass(frozen=True, slots=True)
class Export:
    """Runs with their transitions (by `seq`), and what they were made with."""

    runs: list[Run]
    manifest: dict[str, Any]

    @property
    def transitions(self) -> list[Transition]:
        """The actions of all runs, run by run."""
        return [t for run in self.runs for t in run.transitions]


def read_export(folder: str | Path, *, verify: bool = True) -> Export:
    """The runs of an export, exactly as they were recorded, in the order of its rows.

    Args:
        verify: compare the files with the hashes in the manifest. Without it, files whose values were changed by hand
            can be read.

    Raises:
        DataError: EXPORT_NOT_FOUND, EXPORT_SCHEMA (made by a newer version), EXPORT_BROKEN.
        UsageError: PARQUET_MISSING.
    """
    place = Path(folder)
    manifest = _manifest(place)
    if verify:
        _verify(place, manifest)
    rows, actions = _table(place, "runs.parquet").to_pylist(), _table(place, "transitions.parquet")
    found: dict[tuple[str, int], list[Transition]] = defaultdict(list)
    try:
        for t in transitions_of(actions):
            found[t.run_id, t.attempt].append(t)
        runs = [run_of(row, sorted(found.pop((row["id"], row["attempt"]), ()), key=lambda t: t.seq)) for row in rows]
    except (TypeError, ValueError, KeyError) as error:
        raise _broken(place, f"a row cannot be read: {type(error).__name__}: {error}") from error
    if found:
        raise _broken(place, f"transitions.parquet has actions of {next(iter(found))!r}, which runs.parquet has not")
    for row, run in zip(rows, runs, strict=True):
        if row["transitions"] != len(run.transitions) or len({t.seq for t in run.transitions}) < len(run.transitions):
            raise _broken(place, f"the run {run.id!r} has {len(run.transitions)} actions, not {row['transitions']}")
    return Export(runs, manifest)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{str(folder)!r} is no export: it has no {MANIFEST}.",
            code="EXPORT_NOT_FOUND",
            hint="jade export ROLLOUT --out FOLDER",
        ) from error
    except (OSError, ValueError) as error:
        raise _broken(folder, f"{MANIFEST} cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise DataError(
            f"{str(folder)!r} is no export: its {MANIFEST} is of something else.",
            code="EXPORT_NOT_FOUND",
            hint="jade export ROLLOUT --out FOLDER",
        )
    for name, known in (("export_schema", EXPORT_SCHEMA), ("schema_version", SCHEMA_VERSION)):
        if not isinstance(found.get(name), int):
            raise _broken(folder, f"{MANIFEST} has no {name}")
        if found[name] > known:
            raise _newer(folder, f"has {name} {found[name]}; this version knows {known}")
    return found


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != set(FILES) or manifest.get("content_hash") != content_hash(files):
        raise _broken(folder, f"{MANIFEST} does not describe the files")
    for name, about in files.items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise _broken(folder, f"{name} cannot be read: {error}") from error
        if found != about["sha256"]:
            raise _broken(folder, f"{name} was changed since it was written")


def _table(folder: Path, name: str) -> Any:
    libraries = arrow()
    try:
        # Not pq.read_table: it would look at the folder's name for columns (`rollout=3/`).
        table = libraries.pq.ParquetFile(folder / name).read()
    except (OSError, libraries.pa.ArrowException) as error:
        raise _broken(folder, f"{name} cannot be read: {error}") from error
    wanted = arrow_schema(FILES[name])
    if unknown := [column for column in table.column_names if column not in wanted.names]:
        raise _newer(folder, f"has columns in {name} that this version does not know: {', '.join(unknown)}")
    if missing := [column for column in wanted.names if column not in table.column_names]:
        raise _broken(folder, f"{name} lacks the columns {', '.join(missing)}")
    try:
        return table.select(wanted.names).cast(wanted)
    except libraries.pa.ArrowException as error:
        raise _broken(folder, f"{name} has a column of another type: {error}") from error


def _newer(folder: Path, what: str) -> DataError:
    return DataError(
        f"the export {str(folder)!r} {what}.", code="EXPORT_SCHEMA", hint="pip install --upgrade jade-graph"
    )


def _broken(folder: Path, what: str) -> DataError:
    return DataError(f"the export {str(folder)!r} is broken: {what}.", code="EXPORT_BROKEN", hint="export it again")
