"""A word on a run as `POST /v1/feedback` brings it.

Invariant: a word is on one run, named whole, that its client may see; what cannot be meant leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jade_graph.errors import StoreError
from jade_graph.feedback.of_run import Seen, take
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.store import RunStore
from jade_graph.serve.requests import FeedbackRequest
from jade_graph.types import Run


def give(store: RunStore, run: Run, asked: FeedbackRequest, client: str) -> dict[str, Any]:
    """Keep it; the answer's body. Raises what `feedback.of_run.take` raises."""
    said = Feedback(
        run_id=run.id,
        rating=asked.rating,
        clicked=tuple(asked.clicked),
        used=tuple(asked.used),
        comment=asked.comment,
        source=client,
    )
    seen = [Seen(**each.model_dump()) for each in asked.events]
    events = take(store.engine, run, said, user=asked.user or "", session=asked.session or "", seen=seen)
    return {"id": said.id, "object": "feedback", "run_id": run.id, "events": events}


def exactly(run_id: str, find: Callable[[str], Run]) -> Run:
    """The run of this whole id: `find` takes the beginning of one, too. Raises `StoreError` RUN_NOT_FOUND."""
    try:
        run = find(run_id)
    except StoreError as error:
        if error.error_code != "RUN_AMBIGUOUS":
            raise
    else:
        if run.id == run_id:
            return run
    raise StoreError(f"there is no run {run_id!r}.", code="RUN_NOT_FOUND", hint="GET /v1/runs")
