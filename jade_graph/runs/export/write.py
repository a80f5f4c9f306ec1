"""Writing an export: rows in blocks into a folder beside the wanted one, which takes its name when it is whole.

Invariant: nothing is at the wanted place until everything is written; one version of the weights unless mixing is asked
for; no (run_id, attempt, seq) twice, and no action of a superseded attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jade_graph import private
from jade_graph.errors import DataError, UsageError
from jade_graph.runs.export.datasheet import card
from jade_graph.runs.export.schema import EXPORT_SCHEMA, KIND, RUNS, TRANSITIONS, arrow, arrow_schema, run_row
from jade_graph.runs.export.schema import transition_row as action_row
from jade_graph.settings.manifest import manifest as describe
from jade_graph.types import SCHEMA_VERSION, Run

if TYPE_CHECKING:
    from jade_graph.runs.filters import RunFilter
    from jade_graph.runs.store import RunStore

MANIFEST, CARD = "manifest.json", "README.md"
FILES: Mapping[str, Mapping[str, tuple[str, str]]] = {"transitions.parquet": TRANSITIONS, "runs.parquet": RUNS}
_ROW_GROUP = 8192
_CANCELLED = "CANCELLED"


def export_runs(
    runs: Iterable[Run],
    folder: str | Path,
    manifest: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
    mixed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write runs with their transitions as a folder of Parquet.

    Where a run comes in several attempts the last one that is given counts. Runs that are still running or were
    cancelled are left out and counted.

    Args:
        manifest: what the runs were made with; goes into manifest.json on top of the facts about this process.
        force: replace an export that is there; anything else that is there stays.
        mixed: allow runs of more than one backbone version.
        progress: called with the number of runs written.

    Returns:
        The manifest as it was written: with `counts`, `left_out`, `files` (sha256, rows) and `content_hash`, the sha256
        of the files' own.

    Raises:
        UsageError: EXPORT_EXISTS, EXPORT_MIXED, PARQUET_MISSING.
        DataError: EXPORT_EMPTY, EXPORT_DUPLICATE, EXPORT_VALUE, EXPORT_WRITE.
    """
    last: dict[str, Run] = {}
    for run in runs:
        known = last.get(run.id)
        if known is not None and known.attempt == run.attempt:
            raise DataError(f"the run {run.id!r} comes twice.", code="EXPORT_DUPLICATE")
        if known is None or known.attempt < run.attempt:
            last[run.id] = run
    running = [key for key, run in last.items() if run.status == "running"]
    cancelled = [key for key, run in last.items() if run.error == _CANCELLED]
    for key in (*running, *cancelled):
        del last[key]
    left_out = {"running": len(running), "cancelled": len(cancelled)}
    return _write(last.values(), Path(folder), manifest or {}, left_out, force, mixed, progress, None)


def export_store(
    store: RunStore,
    folder: str | Path,
    *,
    rollout: str | None = None,
    where: RunFilter | None = None,
    force: bool = False,
    mixed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """`export_runs` for recorded runs, read in blocks: of one rollout, of those that pass a filter, or all.

    A run that holds what an export cannot ends nothing: `runs_left_out` of the manifest names it, with the reason, as
    `questions_left_out` names those of a rollout's data set that nobody could ask.

    Raises:
        UsageError: UNKNOWN_ROLLOUT, and what `export_runs` raises.
    """
    from jade_graph.runs import store_read

    facts: dict[str, Any] = {}
    if rollout is not None:
        facts = store_read.require_rollout(store.engine, rollout)
        # The rollout's own process made it; this one only writes it down.
        facts = {"rollout": rollout, "rollout_manifest": facts, **{k: v for k, v in facts.items() if k in _ROLLOUT}}
    facts["questions_left_out"] = facts.get("questions_left_out", [])
    missing = asdict(store.unfinished(where, rollout=rollout))
    left_out = missing if rollout is not None else {k: n for k, n in missing.items() if k != "waiting"}
    return _write(store.iter_runs(where, rollout=rollout), Path(folder), facts, left_out, force, mixed, progress, [])


_ROLLOUT = ("seed", "sampling", "explore", "runs_per_plan", "limits", "questions_left_out")


# --- the folder -------------------------------------------------------------------------------------------------------
def _write(
    runs: Iterable[Run],
    folder: Path,
    manifest: Mapping[str, Any],
    left_out: Mapping[str, int],
    force: bool,
    mixed: bool,
    progress: Callable[[int], None] | None,
    odd: list[dict[str, str]] | None,
) -> dict[str, Any]:
    arrow()
    folder = Path(os.path.abspath(folder))
    _require_free(folder, force)
    part = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by an export that was killed
        private.folder(part)
        try:
            whole = _fill(part, runs, folder.name, manifest, left_out, mixed, progress, odd)
            _put_in_place(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"the export {str(folder)!r} cannot be written: {error}", code="EXPORT_WRITE", hint="another --out FOLDER"
        ) from error
    return whole


def _fill(
    part: Path,
    runs: Iterable[Run],
    name: str,
    manifest: Mapping[str, Any],
    left_out: Mapping[str, int],
    mixed: bool,
    progress: Callable[[int], None] | None,
    odd: list[dict[str, str]] | None,
) -> dict[str, Any]:
    seen = _Seen(mixed)
    with _Table(part, "runs.parquet") as run_rows, _Table(part, "transitions.parquet") as action_rows:
        for run in runs:
            try:
                seen.require_whole(run)
                rows = _rows(run)
            except DataError as error:
                if odd is None:
                    raise
                odd.append({"id": run.id, "reason": error.message})
                continue
            seen.add(run)
            run_rows.add(rows[0])
            for row in rows[1]:
                action_rows.add(row)
            if progress is not None:
                progress(seen.runs)
    if not seen.runs:
        told = ", ".join(f"{n} {why}" for why, n in {**left_out, "odd": len(odd or ())}.items() if n)
        raise DataError(
            f"there is no run to export{f' ({told} left out)' if told else ''}.",
            code="EXPORT_EMPTY",
            hint="jade runs list, or jade rollout DATASET",
        )
    counts = {"runs.parquet": seen.runs, "transitions.parquet": seen.transitions}
    files = {file: {"sha256": sha256(part / file), "rows": counts[file]} for file in FILES}
    whole = {
        **describe(),
        **manifest,
        "kind": KIND,
        "export_schema": EXPORT_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "counts": {
            "runs": seen.runs,
            "answered": seen.runs - seen.failed,
            "failed": seen.failed,
            "without_golds": seen.without_golds,
            "transitions": seen.transitions,
            "trainable_transitions": seen.trainable,
        },
        "left_out": dict(left_out),
        **({} if odd is None else {"runs_left_out": odd}),
        "presets": sorted(seen.presets),
        "backbone_versions": sorted(seen.versions),
        "graph_hashes": sorted(seen.graphs),
        "corpus_ids": sorted(seen.corpora),
        "files": files,
        "content_hash": content_hash(files),
    }
    (part / MANIFEST).write_text(json.dumps(whole, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (part / CARD).write_text(card(whole, name), encoding="utf-8")
    return whole


def _require_free(folder: Path, force: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    ours = folder.is_dir() and (_kind(folder) == KIND or not any(folder.iterdir()))
    if not (force and ours):
        raise UsageError(
            f"{str(folder)!r} is there already{'' if ours else ', and is no export'}.",
            code="EXPORT_EXISTS",
            hint="--force replaces it" if ours else "another --out FOLDER",
        )


def _kind(folder: Path) -> object:
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("kind") if isinstance(found, dict) else None


def _put_in_place(part: Path, folder: Path) -> None:
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash over the files' own."""
    text = "\n".join(f"{name} {files[name]['sha256']}" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


# --- rows -------------------------------------------------------------------------------------------------------------
@dataclass
class _Seen:
    """What has gone by; refuses what an export must not hold."""

    mixed: bool
    runs: int = 0
    failed: int = 0
    without_golds: int = 0
    transitions: int = 0
    trainable: int = 0
    presets: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    graphs: set[str] = field(default_factory=set)
    corpora: set[str] = field(default_factory=set)

    def add(self, run: Run) -> None:
        self.runs += 1
        self.failed += run.status == "failed"
        self.without_golds += not run.metadata.get("answers")
        self.transitions += len(run.transitions)
        self.trainable += sum(t.agent_trainable for t in run.transitions)
        self.presets.add(run.preset)
        self.graphs.add(run.graph_hash)
        self.corpora.add(run.corpus_id)
        acted = {t.backbone_version for t in run.transitions if t.agent_trainable}
        self.versions |= {version for version in (run.backbone_version, *acted) if version}
        if len(self.versions) > 1 and not self.mixed:
            raise UsageError(
                f"the runs were made by more than one backbone version (run {run.id!r}).",
                code="EXPORT_MIXED",
                known=sorted(self.versions),
                hint="--version VERSION for one of them, or --mixed",
            )

    def require_whole(self, run: Run) -> None:
        seqs = set[int]()
        for t in run.transitions:
            if (t.run_id, t.attempt) != (run.id, run.attempt) or t.seq in seqs:
                raise DataError(
                    f"the run {run.id!r} (attempt {run.attempt}) has the action {t.seq} twice, or one of another "
                    f"attempt: {t.run_id!r}, attempt {t.attempt}.",
                    code="EXPORT_DUPLICATE",
                )
            seqs.add(t.seq)
            if len(t.old_logprobs) != len(t.action_token_ids):
                raise _value(
                    run, f"action {t.seq} has {len(t.action_token_ids)} ids and {len(t.old_logprobs)} log-probabilities"
                )


def _rows(run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        return run_row(run), [action_row(t) for t in run.transitions]
    except (TypeError, ValueError) as error:
        raise _value(run, error) from error


def _value(run: Run, what: object) -> DataError:
    return DataError(f"the run {run.id!r} cannot be exported: {what}.", code="EXPORT_VALUE")


class _Table:
    """One Parquet file, written in row groups."""

    def __init__(self, folder: Path, name: str) -> None:
        self._libraries = arrow()
        about = {"jade_export_schema": str(EXPORT_SCHEMA), "jade_schema_version": str(SCHEMA_VERSION)}
        self._schema = arrow_schema(FILES[name]).with_metadata(about)
        self._path = folder / name
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Table:
        self._writer = self._libraries.pq.ParquetWriter(self._path, self._schema, compression="zstd")
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            try:
                table = self._libraries.pa.Table.from_pylist([_clean(row) for row in rows], self._schema)
            except (self._libraries.pa.ArrowException, OverflowError, UnicodeError) as error:
                raise DataError(f"the records cannot be exported: {error}.", code="EXPORT_VALUE") from error
            self._writer.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()


def _clean(value: Any) -> Any:
    """Texts as UTF-8 can hold them, in the rows' lists and structures too; as the run store writes them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
