"""Which recorded runs may go, and taking them away with all that belongs to them.

Invariant: a run goes whole: its actions, trace, feedback and judgements in one transaction. A run that is under way
stays, and so do, unless they are asked for, runs that somebody learns from: of rollouts, rated or judged ones.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from jade_graph.errors import StoreError, UsageError
from jade_graph.runs import tables

_BLOCK = 500
_UNDER_WAY_S = 86_400.0
_UNITS = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@dataclass(frozen=True, slots=True)
class Rule:
    """Runs beyond the newest `keep`, or begun more than `older_than_s` seconds ago; both: beyond both.

    Attributes:
        rollouts, rated: also runs of rollouts; also those with feedback or judgements.
    """

    keep: int | None = None
    older_than_s: float | None = None
    rollouts: bool = False
    rated: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """`ids` of runs that go, the oldest first; the rest counts what is old enough and stays.

    `running`: begun within a day and not ended; `rollouts`, `rated`: as the rule says. `total`: runs of the store.
    """

    ids: tuple[str, ...]
    total: int
    running: int
    rollouts: int
    rated: int


def seconds(text: str) -> float:
    """Of "30d", "12h" or "2w". Raises `UsageError` PRUNE_AGE."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no age.", code="PRUNE_AGE", known=("12h", "30d", "8w"), hint="--older-than 30d")
    return float(found[1]) * _UNITS[found[2]]


def choose(engine: sa.Engine, rule: Rule, *, now: float | None = None) -> Chosen:
    """What the rule takes away. Nothing is changed.

    Raises:
        UsageError: PRUNE_RULE, for a rule that names neither a number nor an age.
    """
    if rule.keep is None and rule.older_than_s is None:
        raise UsageError(
            "which runs may go is not said.", code="PRUNE_RULE", hint="--keep 10000, --older-than 30d, or both"
        )
    now = time.time() if now is None else now
    r = tables.runs.c
    old = sa.select(r.id, r.status, r.started_at).order_by(r.started_at.desc(), r.id.desc())
    if rule.keep is not None:
        old = old.offset(rule.keep)
        if engine.dialect.name == "sqlite":
            old = old.limit(-1)  # SQLite has no OFFSET without a LIMIT
    with engine.connect() as db:
        total = db.execute(sa.select(sa.func.count()).select_from(tables.runs)).scalar_one()
        rows = db.execute(old).all()
        learned = set(db.execute(sa.select(tables.rollout_runs.c.run_id)).scalars())
        said = set(db.execute(sa.select(tables.feedback.c.run_id)).scalars())
        said |= set(db.execute(sa.select(tables.judgements.c.run_id)).scalars())
    ids, running, rollouts, rated = list[str](), 0, 0, 0
    for run_id, status, started_at in reversed(rows):
        if rule.older_than_s is not None and now - started_at <= rule.older_than_s:
            continue
        if status == "running" and now - started_at <= _UNDER_WAY_S:
            running += 1
        elif run_id in learned and not rule.rollouts:
            rollouts += 1
        elif run_id in said and not rule.rated:
            rated += 1
        else:
            ids.append(run_id)
    return Chosen(tuple(ids), int(total), running, rollouts, rated)


def remove(engine: sa.Engine, ids: tuple[str, ...]) -> Iterator[int]:
    """Take these runs away, some hundreds a transaction, so that who writes waits for none of them long.

    Yields how many are gone so far. Runs that a rollout has are gone of it too: it would make them anew.

    Raises:
        StoreError: STORE_WRITE. What was taken away before stays away.
    """
    owned = ((tables.transitions, "run_id"), (tables.trace_nodes, "run_id"), (tables.feedback, "run_id"),
             (tables.judgements, "run_id"), (tables.rollout_runs, "run_id"), (tables.runs, "id"))  # fmt: skip
    for at in range(0, len(ids), _BLOCK):
        block = ids[at : at + _BLOCK]
        try:
            with engine.begin() as db:
                for table, key in owned:
                    db.execute(table.delete().where(table.c[key].in_(block)))
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"runs could not be removed: {error}", code="STORE_WRITE", hint="jade doctor") from error
        yield at + len(block)


def compact(engine: sa.Engine) -> None:
    """Give the room of what was removed back to the disk; only SQLite needs to be told, and it needs as much meanwhile.

    Raises:
        StoreError: STORE_WRITE, e.g. while another process reads.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.exec_driver_sql("VACUUM")
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"the room was not given back: {error}",
            code="STORE_WRITE",
            hint="jade runs prune --compact, when it is idle",
        ) from error
