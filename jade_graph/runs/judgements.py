"""What judges said of recorded runs: usefulness labels of the passages of their searches.

Invariant: a judgement is added and never changed, in a table of its own beside the runs; a run that is read back
carries those of its last attempt by the newest judge as `metadata["usefulness"]`, in the store and in exports alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jade_graph.errors import StoreError
from jade_graph.runs import tables
from jade_graph.types import Run

KEY = "usefulness"
"""Of a run's metadata."""
_BLOCK = 256

Row = tuple[str, float | None, int | None, tuple[int, ...]]
"""A passage's id, its label from 0 to 1, its level, and its votes from the top level down; None: no label."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One search, judged. `judge` names `about`, which says who judged and with what settings."""

    run_id: str
    attempt: int
    seq: int
    judge: str
    query: str
    rows: tuple[Row, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 0
    unreadable: int = 0
    tokens: int = 0
    created_at: float = field(default_factory=time.time)


def keep(engine: sa.Engine, judged: Judged) -> None:
    """Write it, unless it is there. Raises `StoreError` STORE_WRITE."""
    insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(tables.judgements)
    row = {
        "run_id": judged.run_id,
        "attempt": judged.attempt,
        "seq": judged.seq,
        "judge": judged.judge,
        "created_at": judged.created_at,
        "query": judged.query,
        "labels": json.dumps(judged.rows, ensure_ascii=False),
        "about": json.dumps(dict(judged.about), ensure_ascii=False, sort_keys=True, default=str),
        "calls": judged.calls,
        "unreadable": judged.unreadable,
        "tokens": judged.tokens,
    }
    try:
        with engine.begin() as db:
            db.execute(insert.on_conflict_do_nothing(), row)
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"the judgement of run {judged.run_id!r} could not be written: {error}", code="STORE_WRITE"
        ) from error


def of_runs(db: sa.Connection, run_ids: Iterable[str], judge: str | None = None) -> Iterator[Judged]:
    """All judgements of these runs (of one judge), by run, the oldest first."""
    ids, j = list(run_ids), tables.judgements
    for start in range(0, len(ids), _BLOCK):
        query = sa.select(j).where(j.c.run_id.in_(ids[start : start + _BLOCK]))
        if judge is not None:
            query = query.where(j.c.judge == judge)
        for row in db.execute(query.order_by(j.c.run_id, j.c.created_at, j.c.seq)).mappings():
            told: dict[str, Any] = dict(row)
            rows = tuple(
                (id_, label, level, tuple(votes)) for id_, label, level, votes in json.loads(told.pop("labels"))
            )
            yield Judged(**{**told, "about": json.loads(told["about"]), "rows": rows})


def attach(db: sa.Connection, runs: Mapping[str, Run]) -> None:
    """Put what the newest judge said of each run into its metadata."""
    found: dict[str, list[Judged]] = {}
    for each in of_runs(db, runs):
        if each.attempt == runs[each.run_id].attempt:
            found.setdefault(each.run_id, []).append(each)
    for run_id, judged in found.items():
        run = runs[run_id]
        run.metadata = {**run.metadata, KEY: summary(judged)}


def summary(judged: Iterable[Judged]) -> dict[str, Any]:
    """Of one run: the newest `judge`, what it is (`about`), and `searches` with query and labels."""
    every = list(judged)
    newest = max(every, key=lambda each: (each.created_at, each.judge))
    return {
        "judge": newest.judge,
        "about": dict(newest.about),
        "searches": [
            {
                "seq": each.seq,
                "query": each.query,
                "labels": [
                    {"id": id_, "label": label, "level": level, "votes": list(votes)}
                    for id_, label, level, votes in each.rows
                ],
            }
            for each in sorted(every, key=lambda each: each.seq)
            if each.judge == newest.judge
        ],
    }


__all__ = ["KEY", "Judged", "Row", "attach", "keep", "of_runs", "summary"]
