"""A word on a run as events: the list that the run brought, and what its user did with it.

Invariant: what a user says of a run is an impression of its passages only where the user said something about them; a
rating alone tells nothing of who looked where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from jade_graph.errors import UsageError
from jade_graph.feedback.events import FeedbackEvent, event_of, plain
from jade_graph.feedback.keeping import FeedbackEvents
from jade_graph.runs.feedback import Feedback, add
from jade_graph.types import Run


@dataclass(frozen=True, slots=True)
class Seen:
    """One passage of a run as its user saw it.

    Args:
        rank: where it stood; None: its place among the run's documents.
    """

    document: str
    rank: int | None = None
    shown: bool = True
    clicked: bool = False
    cited: bool = False
    dwell: float | None = None
    rating: float | None = None


def events_of(
    run: Run, said: Feedback, *, user: str, session: str = "", seen: Sequence[Seen] = ()
) -> list[FeedbackEvent]:
    """Events of a word on a run.

    Args:
        user: who said it. session: of the app's; empty: each user sees the list of a run once.
        seen: what was shown, exactly; empty: where passages were clicked or used, all documents of the run in order.

    Raises:
        UsageError: FEEDBACK_DOCUMENT.
    """
    place = {d.id: rank for rank, d in enumerate(run.documents, 1)}
    for name in (*said.clicked, *said.used, *(each.document for each in seen)):
        if name not in place:
            raise UsageError(
                f"run {run.id!r} brought no document {name!r}.", code="FEEDBACK_DOCUMENT", known=sorted(place)
            )
    if not seen and (said.clicked or said.used):
        seen = [Seen(d, clicked=d in said.clicked, cited=d in said.used) for d in place]
    return [
        FeedbackEvent(
            user=user,
            query=" ".join(run.question.split()),
            rank=each.rank or place[each.document],
            document=each.document,
            shown=each.shown,
            clicked=each.clicked,
            cited=each.cited,
            dwell=each.dwell,
            rating=each.rating if each.rating is not None else said.rating,
            session=session or f"run {run.id} {user}",
            at=said.created_at,
            run_id=run.id,
        )
        for each in seen
    ]


def take(
    engine: sa.Engine, run: Run, said: Feedback, *, user: str = "", session: str = "", seen: Sequence[Seen] = ()
) -> int:
    """Keep a word on a run: its events, and the rating, clicks and comment beside the run; how many events.

    Args:
        said: `source` is who tells (an API key's name); it stands for the user where none is named.
        user: as the app names them. Ratings of different users behind one source count each.

    Raises:
        UsageError: FEEDBACK_DOCUMENT, FEEDBACK_EMPTY, FEEDBACK_RATING. DataError: FEEDBACK_EVENT.
        StoreError: FEEDBACK_FULL, STORE_WRITE.
    """
    clicked = (*said.clicked, *(each.document for each in seen if each.clicked))
    used = (*said.used, *(each.document for each in seen if each.cited))
    said = replace(said, clicked=tuple(dict.fromkeys(clicked)), used=tuple(dict.fromkeys(used)))
    made = events_of(run, said, user=user or said.source, session=session, seen=seen)
    if made:
        kept = FeedbackEvents(engine)
        kept.add(event_of(plain(event)) for event in made)
    if user:
        said = replace(said, source=f"{said.source[:60]}/{FeedbackEvents(engine).user(user)}")
    if not made or said.clicked or said.used or said.rating is not None or said.comment:
        add(engine, said)
    return len(made)
