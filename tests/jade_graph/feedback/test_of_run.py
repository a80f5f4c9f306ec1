"""A word on a run as events of the list that it brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.errors import DataError, UsageError
from jade_graph.feedback.keeping import FeedbackEvents
from jade_graph.feedback.of_run import Seen, take
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.store import RunStore


@pytest.fixture
async def recorded(tmp_path: Path, scripted, passages):
    with RunStore(tmp_path / "runs.db") as store:
        yield store, await JadeGraph(scripted(), retriever=passages, recorder=store, k=3).arun("who  is it?")


def kept(store):
    return [(e.rank, e.document, e.clicked, e.cited) for e in FeedbackEvents(store.engine)]


def test_a_click_is_an_impression_of_the_whole_list(recorded):
    store, run = recorded
    assert take(store.engine, run, Feedback(run.id, clicked=("p1",), source="key1"), user="ann") == 3
    assert take(store.engine, run, Feedback(run.id, 1.0, used=("p1",), source="key1"), user="ann") == 3
    assert kept(store) == [(1, "p0", False, False), (2, "p1", True, True), (3, "p2", False, False)]
    event = next(iter(FeedbackEvents(store.engine)))
    assert (event.query, event.run_id, event.rating) == ("who is it?", run.id, 1.0)
    told = store.get(run.id).metadata["feedback"]
    assert (told["clicked"], told["used"], told["rating"]) == (["p1"], ["p1"], 1.0)


def test_a_rating_alone_tells_nothing_of_who_looked_where(recorded):
    store, run = recorded
    assert take(store.engine, run, Feedback(run.id, -1.0, source="key1"), user="ann") == 0
    assert take(store.engine, run, Feedback(run.id, 0.0, source="key1"), user="bob") == 0
    assert kept(store) == []
    told = store.get(run.id).metadata["feedback"]
    assert (told["rating"], told["ratings"]) == (-0.5, 2)  # of two people behind one key
    assert FeedbackEvents(store.engine).forget("ann") == (0, 1)
    assert store.get(run.id).metadata["feedback"]["rating"] == 0.0


def test_what_was_shown_can_be_said_exactly(recorded):
    store, run = recorded
    seen = [Seen("p2", rank=1, clicked=True, dwell=4.0), Seen("p0", rank=2), Seen("p1", shown=False)]
    assert take(store.engine, run, Feedback(run.id), user="ann", session="one", seen=seen) == 3
    assert sorted(kept(store)) == [(1, "p2", True, False), (2, "p0", False, False), (2, "p1", False, False)]
    assert store.get(run.id).metadata["feedback"]["clicked"] == ["p2"]
    assert take(store.engine, run, Feedback(run.id), user="ann", session="two", seen=[Seen("p0")]) == 1
    assert store.get(run.id).metadata["feedback"]["count"] == 1  # nothing was clicked: an impression alone


def test_what_cannot_be_meant_is_refused_and_leaves_nothing(recorded):
    store, run = recorded
    for said, seen, code in (
        (Feedback(run.id, clicked=("p1", "p9")), (), "FEEDBACK_DOCUMENT"),
        (Feedback(run.id), [Seen("p9")], "FEEDBACK_DOCUMENT"),
        (Feedback(run.id), (), "FEEDBACK_EMPTY"),
        (Feedback(run.id), [Seen("p1", clicked=True, shown=False)], "FEEDBACK_EVENT"),
    ):
        with pytest.raises((UsageError, DataError)) as caught:
            take(store.engine, run, said, user="ann", seen=seen)
        assert caught.value.error_code == code
    assert kept(store) == []
    assert "feedback" not in store.get(run.id).metadata
