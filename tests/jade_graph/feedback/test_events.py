"""Events: read whole or refused with their line; users and sessions are pseudonyms."""

from __future__ import annotations

import json

import pytest

from jade_graph.errors import DataError, UsageError
from jade_graph.feedback.events import (
    FeedbackEvent,
    Reading,
    event_of,
    hidden,
    plain,
    pseudonym,
    read_events,
    write_events,
)

GOOD = {"user": "ann", "query": " who \n is it? ", "rank": 2, "document": "p1", "clicked": True}


def test_what_was_written_is_read_again(tmp_path):
    events = [
        event_of(GOOD | {"session": "a", "dwell": 3, "rating": -1, "at": 5.5, "run_id": "r"}),
        FeedbackEvent("u-0123456789abcdef", "line break", 1, "p\u2029\u2028", session="b", shown=False),
    ]
    assert write_events(tmp_path / "e.jsonl", events) == 2
    assert list(read_events(tmp_path / "e.jsonl")) == events
    assert events[0].query == "who is it?"
    assert "dwell" not in plain(events[1])


@pytest.mark.parametrize(
    "change",
    [
        {"user": ""},
        {"user": 7},
        {"user": None},
        {"query": "x" * 4001},
        {"document": " "},
        {"rank": 0},
        {"rank": 1001},
        {"rank": True},
        {"rank": 1.0},
        {"clicked": "yes"},
        {"clicked": 2},
        {"dwell": -1},
        {"dwell": float("nan")},
        {"dwell": True},
        {"rating": 1.5},
        {"shown": False},
        {"colour": "red"},
    ],
)
def test_an_event_that_cannot_be_meant_is_refused_with_its_place(change, tmp_path):
    (tmp_path / "e.jsonl").write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(DataError) as caught:
        list(read_events(tmp_path / "e.jsonl"))
    assert caught.value.error_code == "FEEDBACK_EVENT"
    assert "e.jsonl:3" in caught.value.message


def test_what_is_no_json_and_no_file_is_told(tmp_path):
    (tmp_path / "e.jsonl").write_text("{")
    with pytest.raises(DataError, match="FEEDBACK_EVENT"):
        list(read_events(tmp_path / "e.jsonl"))
    with pytest.raises(DataError, match="FEEDBACK_EVENT"):
        event_of([1])
    with pytest.raises(UsageError, match="FEEDBACK_FILE"):
        list(read_events(tmp_path / "none.jsonl"))


def test_lines_without_a_session_are_lists_and_the_same_file_has_the_same_ones(tmp_path):
    lines = [("ann", "q", "a"), ("ann", "q", "b"), ("ann", "q", "a"), ("bob", "q", "a"), ("ann", "other", "a")]
    text = "".join(json.dumps({"user": u, "query": q, "rank": 1, "document": d}) + "\n" for u, q, d in lines)
    (tmp_path / "e.jsonl").write_text(text)
    (tmp_path / "f.jsonl").write_text(text)
    told = Reading()
    sessions = [e.session for e in read_events(tmp_path / "e.jsonl", told)]
    assert (told.events, told.without_session) == (5, 5)
    assert sessions[0] == sessions[1]
    assert len(set(sessions)) == 4
    assert [e.session for e in read_events(tmp_path / "f.jsonl")] == sessions


def test_a_pseudonym_hides_the_name_depends_on_the_store_and_stays_what_it_is():
    found = pseudonym("salt", "ann@example.com")
    assert "ann" not in found
    assert found == pseudonym("salt", "ann@example.com") == pseudonym("other", found)
    assert found != pseudonym("other", "ann@example.com")
    event = hidden(event_of(GOOD | {"session": "ann's session"}), "salt")
    assert "ann" not in json.dumps(plain(event))
    assert hidden(event, "other") == event
    assert event.session.startswith("s-")


def test_text_that_no_database_holds_is_cleaned_before_it_is_counted():
    event = event_of(GOOD | {"query": "a\x00b\ud800"})
    assert event.query == "a\ufffdb?"
