"""Events in the store: counted once, added to, bounded, forgotten for good."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from jade_graph.errors import DataError, StoreError
from jade_graph.feedback import keeping
from jade_graph.feedback.estimators import estimate
from jade_graph.feedback.events import read_events, write_events
from jade_graph.feedback.examination import Examination
from jade_graph.feedback.keeping import FeedbackEvents, Kept
from jade_graph.feedback.labels import forget_in, make_labels, write_lines
from jade_graph.feedback.log import log_of
from jade_graph.runs import feedback as ratings
from jade_graph.runs.store import RunStore
from jade_graph.types import Run


def test_an_event_told_twice_counts_once_and_more_about_it_is_added(kept, event):
    assert kept.add([event(clicked=True, dwell=5.0), event(user="bob")]) == Kept(2, 0)
    assert kept.add([event(cited=True, dwell=2.0, rating=0.5), event(document="p2")]) == Kept(1, 1)
    first = next(e for e in kept if e.document == "p1" and e.clicked)
    assert (first.cited, first.dwell, first.rating, first.shown) == (True, 5.0, 0.5, True)
    assert kept.add([event(rating=-1.0), event(rating=1.0)]) == Kept(0, 2)  # twice in one call
    assert next(e for e in kept if e.clicked).rating == 1.0
    assert len(kept) == 3


def test_users_are_pseudonyms_of_this_store_also_after_it_was_closed(tmp_path, event):
    found = []
    for name in ("one", "one", "two"):
        with RunStore(tmp_path / f"{name}.db") as store:
            kept = FeedbackEvents(store.engine)
            kept.add([event(user="ann@example.com", session="ann's")])
            found.append(next(iter(kept)).user)
            assert len(kept) == 1
    assert found[0] == found[1] != found[2]
    assert b"example.com" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


def test_a_full_store_refuses_and_keeps_what_it_has(kept, event):
    kept.add([event(document=str(i)) for i in range(3)], limit=3)
    with pytest.raises(StoreError) as caught:
        kept.add([event(document=str(i)) for i in range(2, 5)], limit=4)
    assert caught.value.error_code == "FEEDBACK_FULL"
    assert sorted(e.document for e in kept) == ["0", "1", "2"]


def test_many_events_are_written_in_blocks_that_hold_nobody_up(kept, event, monkeypatch):
    monkeypatch.setattr(keeping, "_BLOCK", 7)
    held = []
    sa.event.listen(kept.engine, "commit", lambda db: held.append(db.dialect.name))
    assert kept.add([event(document=str(i % 30)) for i in range(40)]) == Kept(30, 10)
    assert len(held) == 6
    with pytest.raises(StoreError, match="after 7 of these"):
        kept.add([event(document=str(i)) for i in range(29, 50)], limit=37)
    assert len(kept) == 36
    assert len(list(kept)) == 36


def test_an_error_within_a_block_leaves_nothing_of_it(kept, event):
    def broken():
        yield from (event(document=str(i)) for i in range(50))
        raise DataError("no")

    with pytest.raises(DataError):
        kept.add(broken())
    assert len(kept) == 0


def test_export_and_import_is_the_same_events_in_another_store(kept, event, tmp_path):
    kept.add([event(clicked=True), event(user="bob", dwell=1.5, at=3.0), event(shown=False, document="p\u2028")])
    write_events(tmp_path / "e.jsonl", kept)
    with RunStore(tmp_path / "other.db") as store:
        other = FeedbackEvents(store.engine)
        assert other.add(read_events(tmp_path / "e.jsonl")) == Kept(3, 0)
        assert list(other) == list(kept)
    assert kept.add(read_events(tmp_path / "e.jsonl")) == Kept(0, 3)


def test_a_forgotten_user_is_in_no_table_and_in_no_byte_of_the_file(tmp_path, event):
    with RunStore(tmp_path / "runs.db") as store:
        kept = FeedbackEvents(store.engine)
        store.run_started(run := Run("r", "who?", "", "jade", 0, "answered"))
        store.run_finished(run)
        store.flush()
        kept.add([event(query=f"secret {i}", user="ann") for i in range(50)] + [event(user="bob")])
        name = kept.user("ann")
        ratings.add(store.engine, ratings.Feedback("r", 1.0, comment="secret word", source=f"key1/{name}"))
        ratings.add(store.engine, ratings.Feedback("r", -1.0, source="key1"))
        assert kept.forget("ann") == (50, 1)
        assert [e.user for e in kept] == [kept.user("bob")]
        assert store.get("r").metadata["feedback"]["rating"] == -1.0
        assert kept.forget(name) == (0, 0)
        bytes_ = b"".join(p.read_bytes() for p in Path(tmp_path).iterdir())
        assert name.encode() not in bytes_
        assert b"secret" not in bytes_


def test_old_events_are_forgotten_by_age(kept, event):
    now = time.time()
    kept.add([event(at=now - 10), event(at=now - 1000, document="p2")])
    assert kept.forget_before(now - 100) == 1
    assert [e.document for e in kept] == ["p1"]


# --- labels -----------------------------------------------------------------------------------------------------------
def test_labels_are_lines_that_name_whose_events_count(event, tmp_path):
    events = [
        event(user=u, session=u, document=d, rank=r, clicked=d == "b") for u in "xy" for r, d in enumerate("ab", 1)
    ]
    events.append(event(user="z", query="other", document="gone", session="z"))
    log = log_of(events)
    labels = make_labels(
        log, estimate(log, Examination((1.0, 0.5))), {"kind": "feedback"}, texts={"a": "A", "b": "B\u2028"}
    )
    assert (labels.without_text, labels.documents) == (1, 2)
    [line] = labels.lines
    assert [(d["id"], d["label"]) for d in line["documents"]] == [("b", 1.0), ("a", 0.0)]
    assert line["documents"][0]["relevance"] == 2.0  # as it came out
    assert line["source"] == {"kind": "feedback", "sessions": 2, "users": ["x", "y"]}
    for document in line["documents"]:
        low, high = document["interval"]
        assert 0 <= low <= document["label"] <= high <= 1
    every = make_labels(log, estimate(log, Examination((1.0, 0.5))), {}, min_shown=2)
    assert (every.too_few, "text" in every.lines[0]["documents"][0]) == (1, False)

    file = tmp_path / "labels.jsonl"
    write_lines(file, [line, {"query": "more", "documents": [], "source": {"users": ["x"]}}])
    assert [json.loads(text)["query"] for text in file.read_text().split("\n") if text] == ["who?", "more"]
    assert forget_in(file, "y") == 1
    assert json.loads(file.read_text())["query"] == "more"
    assert forget_in(file, "y") == 0
    file.write_text("{")
    with pytest.raises(DataError, match="FEEDBACK_FILE"):
        forget_in(file, "x")
    assert file.read_text() == "{"
