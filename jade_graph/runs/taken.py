"""Ids that are taken: a run that has ended keeps its record.

Invariant: what is queued of a run that was begun with the id of an ended one, as the same attempt or an earlier one, is
written nowhere, and whoever waits for it is told so. A later attempt replaces it, as attempts do.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

import sqlalchemy as sa

from jade_graph.errors import StoreError
from jade_graph.runs import tables

logger = logging.getLogger("jade_graph")

Item = tuple[str, Any]
"""What a recorder was told: "run", "transition", "nodes", "resume" or "end", and of what."""


def ended(db: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Those of the ids whose run has ended, with the attempt as which it did."""
    r = tables.runs.c
    rows = db.execute(sa.select(r.id, r.attempt).where(r.id.in_(ids), r.status != "running"))
    return {str(row.id): int(row.attempt) for row in rows}


class Taken:
    """Which of the runs under way are not recorded. `shown`: the store, as messages name it."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self._refused: set[tuple[str, int]] = set()

    def leave_out(
        self, engine: sa.Engine, items: Sequence[Item], failures: MutableMapping[str, StoreError]
    ) -> Sequence[Item]:
        """The items that may be written, in order; for runs that may not, the reason is put into `failures`."""
        begun = [value[0].id for kind, value in items if kind == "run"]
        if not begun and not self._refused:
            return items
        with engine.connect() as db:
            r = tables.runs.c
            rows = db.execute(sa.select(r.id, r.attempt, r.started_at).where(r.id.in_(begun), r.status != "running"))
            found = {str(row.id): (int(row.attempt), float(row.started_at)) for row in rows}
        return [item for item in items if self._may(item, found, failures)]

    def _may(self, item: Item, found: dict[str, tuple[int, float]], failures: MutableMapping[str, StoreError]) -> bool:
        kind, run_id, attempt = item[0], run_of(item), _attempt_of(item)
        known, since = found.get(run_id, (-1, 0.0))
        if kind == "run" and known >= attempt and item[1][0].started_at != since:  # else it is told of itself
            self._refused.add((run_id, attempt))
            failures[run_id] = StoreError(
                f"there is a run {run_id!r} in {self.shown!r} already: its record stays as it is, and this run of the "
                "same id is not recorded.",
                code="RUN_EXISTS",
                hint="leave run_id out",
            )
            logger.error("%s", failures[run_id])
        refused = (run_id, attempt) in self._refused
        if kind == "end":
            self._refused.discard((run_id, attempt))
            if not refused:
                found[run_id] = (attempt, item[1][0].started_at)
        return not refused


def run_of(item: Item) -> str:
    """The run that a queued item belongs to."""
    kind, value = item
    if kind == "transition":
        return str(value.run_id)
    return str(value[0]) if kind in ("nodes", "resume") else str(value[0].id)


def _attempt_of(item: Item) -> int:
    kind, value = item
    if kind == "transition":
        return int(value.attempt)
    return int(value[1]) if kind in ("nodes", "resume") else int(value[0].attempt)
