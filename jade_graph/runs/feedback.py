"""What users said about a run: a rating, and the documents that they clicked or used.

Invariant: feedback is added and never changed, in a table of its own beside the runs; a run that is read back carries a
summary of it as `metadata["feedback"]`, in the run store and in exports alike. No feedback is None, never 0.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from jade_graph.errors import StoreError, UsageError
from jade_graph.runs import tables
from jade_graph.types import Question, Run

KEY = "feedback"
"""Of a run's metadata."""
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Feedback:
    """One person's word on one run.

    Args:
        rating: -1 (bad) to 1 (good); None: nothing was said about the answer.
        clicked, used: ids of documents of the run.
        source: who says so, e.g. the name of an API key.
    """

    run_id: str
    rating: float | None = None
    clicked: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    comment: str = ""
    source: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: float = field(default_factory=time.time)


def add(engine: sa.Engine, feedback: Feedback) -> None:
    """Write it beside its run.

    Raises:
        UsageError: FEEDBACK_EMPTY, FEEDBACK_RATING, FEEDBACK_DOCUMENT (no such document in the run's last attempt).
        StoreError: RUN_NOT_FOUND, STORE_WRITE.
    """
    _require_sound(feedback)
    try:
        with engine.begin() as db:
            _require_documents(db, feedback)
            db.execute(
                tables.feedback.insert(),
                {
                    "id": feedback.id,
                    "run_id": feedback.run_id,
                    "created_at": feedback.created_at,
                    "rating": feedback.rating,
                    "clicked": json.dumps(feedback.clicked),
                    "used": json.dumps(feedback.used),
                    "comment": feedback.comment,
                    "source": feedback.source,
                },
            )
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"the feedback on run {feedback.run_id!r} could not be written: {error}", code="STORE_WRITE"
        ) from error


def of_runs(db: sa.Connection, run_ids: Iterable[str]) -> dict[str, list[Feedback]]:
    """All feedback on these runs, the oldest first; runs without any are not there."""
    ids, f = list(run_ids), tables.feedback
    out: dict[str, list[Feedback]] = {}
    for start in range(0, len(ids), _BLOCK):
        query = sa.select(f).where(f.c.run_id.in_(ids[start : start + _BLOCK])).order_by(f.c.created_at, f.c.id)
        for row in db.execute(query).mappings():
            lists = {name: tuple(json.loads(row[name])) for name in ("clicked", "used")}
            out.setdefault(row["run_id"], []).append(Feedback(**{**row, **lists}))
    return out


def attach(db: sa.Connection, runs: Mapping[str, Run]) -> None:
    """Put the summary of each run's feedback into its metadata."""
    for run_id, found in of_runs(db, runs).items():
        run = runs[run_id]
        run.metadata = {**run.metadata, KEY: summary(found)}


def summary(feedback: Sequence[Feedback]) -> dict[str, Any]:
    """`rating` (mean of those given, or None), `ratings` (how many), `count`, and all documents clicked and used.

    Of one source (an API key) the newest rating is its rating: saying it twice does not make it count twice.
    """
    given = [f for f in feedback if f.rating is not None]
    newest = {f.source or f.id: f.rating for f in sorted(given, key=lambda f: (f.created_at, f.id))}
    ratings = [rating for rating in newest.values() if rating is not None]
    return {
        "rating": math.fsum(ratings) / len(ratings) if ratings else None,
        "ratings": len(ratings),
        "count": len(feedback),
        "clicked": list(dict.fromkeys(d for f in feedback for d in f.clicked)),
        "used": list(dict.fromkeys(d for f in feedback for d in f.used)),
    }


def reward(run: Run, question: Question) -> float | None:
    """The reward `feedback`: the mean rating, -1 to 1; None where nobody rated the run."""
    del question
    found = run.metadata.get(KEY)
    rating = found.get("rating") if isinstance(found, Mapping) else None
    return None if rating is None else float(rating)


def _require_sound(feedback: Feedback) -> None:
    if feedback.rating is not None and not -1.0 <= feedback.rating <= 1.0:
        raise UsageError(
            f"the rating is {feedback.rating!r}: it goes from -1 (bad) to 1 (good).", code="FEEDBACK_RATING"
        )
    if feedback.rating is None and not (feedback.clicked or feedback.used or feedback.comment):
        raise UsageError(
            "the feedback says nothing.", code="FEEDBACK_EMPTY", known=("rating", "clicked", "used", "comment")
        )


def _require_documents(db: sa.Connection, feedback: Feedback) -> None:
    r, t = tables.runs, tables.transitions
    attempt = db.execute(sa.select(r.c.attempt).where(r.c.id == feedback.run_id)).scalar()
    if attempt is None:
        raise StoreError(f"there is no run {feedback.run_id!r}.", code="RUN_NOT_FOUND", hint="GET /v1/runs")
    named = (*feedback.clicked, *feedback.used)
    if not named:
        return
    query = sa.select(t.c.parsed).where(t.c.run_id == feedback.run_id, t.c.attempt == attempt, t.c.role == "R")
    shown = {d["id"] for text in db.execute(query).scalars() for d in json.loads(text).get("documents", ())}
    if (strange := next((name for name in named if name not in shown), None)) is not None:
        raise UsageError(
            f"run {feedback.run_id!r} brought no document {strange!r}.",
            code="FEEDBACK_DOCUMENT",
            known=sorted(shown),
        )


__all__ = ["KEY", "Feedback", "add", "attach", "of_runs", "reward", "summary"]
