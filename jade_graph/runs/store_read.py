"""Reading many runs at once out of the run store, and the rollouts that it holds.

Invariant: a run comes with the trace and the transitions of its last attempt and of no other. Runs are read in blocks
with five queries each, never with queries per run, so memory holds one block.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jade_graph.errors import StoreError, unknown
from jade_graph.runs import feedback, judgements, tables
from jade_graph.runs.text import clean
from jade_graph.types import Run, TraceNode, Transition

BLOCK = 256
"""Runs read at once; also the size of an IN list, far below every database's limit on parameters."""
CANCELLED = "CANCELLED"
"""The error of a run that whoever started it stopped: it neither answered nor failed at anything."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Runs that an export leaves out: still running (or killed), cancelled, and those of a rollout not yet begun."""

    running: int
    cancelled: int
    waiting: int = 0


# --- runs -------------------------------------------------------------------------------------------------------------
def iter_runs(
    engine: sa.Engine,
    conditions: Sequence[sa.ColumnElement[bool]] = (),
    *,
    rollout: str | None = None,
    ids: Iterable[str] | None = None,
) -> Iterator[Run]:
    """Runs that ended, by start time (with `ids`: in their order); see `RunStore.iter_runs`."""
    r = tables.runs
    if ids is None:
        query = sa.select(r.c.id).where(_ended(), *conditions).order_by(r.c.started_at, r.c.id)
        with engine.connect() as db:
            wanted = list(db.execute(_of(query, rollout)).scalars())
    else:
        wanted = list(ids)
    for start in range(0, len(wanted), BLOCK):
        yield from _block(engine, wanted[start : start + BLOCK], conditions, rollout)


def _block(
    engine: sa.Engine, ids: Sequence[str], conditions: Sequence[sa.ColumnElement[bool]], rollout: str | None
) -> Iterator[Run]:
    r, n, t = tables.runs, tables.trace_nodes, tables.transitions
    with engine.connect() as db:
        # The run's row first: what it says has ended was committed with all of its transitions.
        query = _of(sa.select(r).where(r.c.id.in_(ids), _ended(), *conditions), rollout)
        runs = {row["id"]: tables.run_of(dict(row)) for row in db.execute(query).mappings()}
        nodes, actions = defaultdict[str, list[TraceNode]](list), defaultdict[str, list[Transition]](list)
        for row in db.execute(sa.select(n).where(n.c.run_id.in_(runs))).mappings():
            if row["attempt"] == runs[row["run_id"]].attempt:
                nodes[row["run_id"]].append(tables.node_of(dict(row)))
        # The attempt is compared to the run as read above: another process may begin a new one in between.
        for line in db.execute(sa.select(t).where(t.c.run_id.in_(runs)).order_by(t.c.run_id, t.c.seq)).mappings():
            if line[t.c.attempt] == runs[line[t.c.run_id]].attempt:
                actions[line[t.c.run_id]].append(tables.transition_of({c.key: line[c] for c in t.columns}))
        feedback.attach(db, runs)
        judgements.attach(db, runs)
    for key in map(clean, ids):
        if (run := runs.get(key)) is not None:
            run.trace = tuple(sorted(nodes[key], key=lambda node: tuple(map(int, node.id.split(".")))))
            run.transitions = tuple(actions[key])
            yield run


def unfinished(
    engine: sa.Engine, conditions: Sequence[sa.ColumnElement[bool]] = (), *, rollout: str | None = None
) -> Unfinished:
    """How many runs `iter_runs` leaves out."""
    r, m = tables.runs, tables.rollout_runs
    count = sa.select(sa.func.count()).select_from(r).where(*conditions)
    with engine.connect() as db:
        running = db.execute(_of(count.where(r.c.status == "running"), rollout)).scalar_one()
        cancelled = db.execute(_of(count.where(r.c.error == CANCELLED), rollout)).scalar_one()
        waiting = 0
        if rollout is not None:
            begun = sa.select(r.c.id).where(r.c.id == m.c.run_id).exists()
            missing = sa.select(sa.func.count()).select_from(m).where(m.c.rollout_id == rollout, ~begun)
            waiting = db.execute(missing).scalar_one()
    return Unfinished(int(running), int(cancelled), int(waiting))


def _ended() -> sa.ColumnElement[bool]:
    c = tables.runs.c
    return sa.and_(c.status != "running", sa.or_(c.error.is_(None), c.error != CANCELLED))


def _of(query: Any, rollout: str | None) -> Any:
    if rollout is None:
        return query
    m = tables.rollout_runs
    return query.where(tables.runs.c.id.in_(sa.select(m.c.run_id).where(m.c.rollout_id == rollout)))


# --- rollouts ---------------------------------------------------------------------------------------------------------
def rollout_ids(engine: sa.Engine) -> list[str]:
    """The rollouts of the store, the newest first."""
    c = tables.rollouts.c
    with engine.connect() as db:
        return list(db.execute(sa.select(c.id).order_by(c.started_at.desc(), c.id)).scalars())


def rollout_manifest(engine: sa.Engine, rollout: str) -> dict[str, Any] | None:
    """What the rollout was begun with; None where there is none of this id."""
    c = tables.rollouts.c
    with engine.connect() as db:
        found = db.execute(sa.select(c.manifest).where(c.id == rollout)).scalar()
    return None if found is None else dict(json.loads(found))


def require_rollout(engine: sa.Engine, rollout: str) -> dict[str, Any]:
    """`rollout_manifest`. Raises `UsageError` UNKNOWN_ROLLOUT with the known ids."""
    found = rollout_manifest(engine, rollout)
    if found is None:
        known = rollout_ids(engine)
        hint = "" if known else "jade rollout DATASET records one"
        raise unknown("rollout", rollout, known, code="UNKNOWN_ROLLOUT", hint=hint)
    return found


def begin_rollout(engine: sa.Engine, rollout: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a rollout begins with, unless it has begun; returns what it began with."""
    row = {"id": rollout, "started_at": time.time(), "manifest": json.dumps(dict(manifest))}
    _insert_new(engine, tables.rollouts, [row])
    return require_rollout(engine, rollout)


def add_runs(engine: sa.Engine, rollout: str, ids: Sequence[str]) -> None:
    """Make these runs the rollout's, those that are already left as they are."""
    _insert_new(engine, tables.rollout_runs, [{"run_id": run_id, "rollout_id": rollout} for run_id in ids])


def attempts(engine: sa.Engine, rollout: str) -> dict[str, int]:
    """The last attempt that left anything, by run id; runs that have not begun are not there."""
    r, t, m = tables.runs, tables.transitions, tables.rollout_runs
    of = sa.select(m.c.run_id).where(m.c.rollout_id == rollout)
    out: dict[str, int] = {}
    with engine.connect() as db:
        rows = sa.select(t.c.run_id, sa.func.max(t.c.attempt)).where(t.c.run_id.in_(of)).group_by(t.c.run_id)
        for query in (sa.select(r.c.id, r.c.attempt).where(r.c.id.in_(of)), rows):
            for run_id, attempt in db.execute(query):
                out[run_id] = max(attempt, out.get(run_id, 0))
    return out


def _insert_new(engine: sa.Engine, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(table)
    try:
        with engine.begin() as db:
            if rows:
                db.execute(insert.on_conflict_do_nothing(), list(rows))
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"a rollout could not be written to the run store: {error}", code="STORE_WRITE", hint="jade doctor"
        ) from error
