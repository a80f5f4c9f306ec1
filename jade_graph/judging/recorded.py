"""Which recorded runs are meant: a rollout, single runs, an export, or all of the run store.

Invariant: nothing is guessed: a name that is none of these is an error with what there is. Runs of an export carry what
this project's run store knows of their judgements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jade_graph.errors import StoreError, unknown
from jade_graph.runs import judgements, store_read
from jade_graph.runs.export.read import read_export
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.store import RunStore
from jade_graph.types import Run


def runs_of(store: RunStore, names: Sequence[str] = (), where: RunFilter | None = None) -> Iterator[Run]:
    """Runs that ended, each once.

    Args:
        names: rollouts, folders of `jade export`, runs by id or its beginning; none: all of the store.
        where: only those that pass.

    Raises:
        UsageError: JUDGE_RUNS, with the rollouts there are. DataError: what `read_export` raises.
    """
    seen: set[str] = set()
    for run in _of(store, names, where):
        if run.id not in seen:
            seen.add(run.id)
            yield run


def _of(store: RunStore, names: Sequence[str], where: RunFilter | None) -> Iterator[Run]:
    if not names:
        yield from store.iter_runs(where)
        return
    rollouts = store_read.rollout_ids(store.engine)
    plain: list[str] = []
    for name in names:
        if name in rollouts:
            yield from store.iter_runs(where, rollout=name)
        elif Path(name).is_dir():
            yield from _exported(store, name, where)
        else:
            plain.append(_run_id(store, name, rollouts))
    if plain:
        yield from store.iter_runs(where, ids=plain)


def _exported(store: RunStore, folder: str, where: RunFilter | None) -> Iterator[Run]:
    runs = read_export(folder).runs
    preset, version = (where.preset, where.version) if where is not None else (None, None)
    chosen = [run for run in runs if preset in (None, run.preset) and version in (None, run.backbone_version)]
    with store.engine.connect() as db:
        judgements.attach(db, {run.id: run for run in chosen})
    yield from chosen


def _run_id(store: RunStore, name: str, rollouts: Sequence[str]) -> str:
    try:
        return store.get(name).id
    except StoreError as error:
        if error.error_code != "RUN_NOT_FOUND":
            raise
        raise unknown("run, rollout or export", name, rollouts, code="JUDGE_RUNS", hint="jade runs list") from error


__all__ = ["runs_of"]
