"""Events of a few users, and a store to keep them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.feedback.events import FeedbackEvent
from jade_graph.feedback.keeping import FeedbackEvents
from jade_graph.runs.store import RunStore


@pytest.fixture
def event():
    """An event with what matters to a test changed."""

    def made(**changes) -> FeedbackEvent:
        given = {"user": "ann", "query": "who?", "rank": 1, "document": "p1", "session": "s1"}
        return FeedbackEvent(**(given | changes))

    return made


@pytest.fixture
def kept(tmp_path: Path):
    with RunStore(tmp_path / "runs.db") as store:
        yield FeedbackEvents(store.engine)
