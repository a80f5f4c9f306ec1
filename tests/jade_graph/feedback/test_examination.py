"""Examination: read, fitted to users whose truth is known, refused where clicks cannot tell it from relevance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jade_graph.errors import DataError, UsageError
from jade_graph.feedback.diagnosis import diagnose
from jade_graph.feedback.estimators import relevance
from jade_graph.feedback.examination import (
    FLOOR,
    Examination,
    fit_examination,
    links,
    power,
    power_law,
    read_examination,
    unlinked,
)
from jade_graph.feedback.log import log_of
from jade_graph.microworld.users import attraction, make_crowd, make_events


@pytest.fixture(scope="module")
def crowd():
    return make_crowd(20, seed=1)


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    lists = {f"q{q}": [f"{q}-{k}" for k in range(6)] for q in range(20)}
    return lists, {q: [d[int(rng.integers(6))]] for q, d in lists.items()}


@pytest.fixture(scope="module")
def log(crowd, truth):
    return log_of(make_events(crowd, *truth, 3000, shuffle=0.3))


def test_em_finds_who_looks_where_and_how_relevant_passages_are(crowd, truth, log):
    found = fit_examination(log)
    true = power_law(dict(zip(crowd.names, crowd.etas, strict=True)))
    assert (found.how, found.facts["own"], found.facts["ended"]) == ("fitted", 5, True)
    assert np.abs(found.table(log) - true.table(log)).max() < 0.2
    assert np.abs(found.table(log) - true.table(log)).mean() < 0.03
    wanted = attraction([4.0 if d in truth[1][log.queries[q]] else 0.0 for q, d in log.pairs])
    gap = [np.abs(np.clip(relevance(log, each), 0, 1) - wanted).mean() for each in (found, true)]
    assert gap[0] < gap[1] + 0.02


def test_a_fit_is_refused_where_no_passage_stood_at_two_ranks(crowd, truth):
    log = log_of(make_events(crowd, *truth, 300, shuffle=0.0))
    assert links(log) == []
    assert unlinked(log) == [1, 2, 3, 4, 5]
    with pytest.raises(DataError) as caught:
        fit_examination(log)
    assert caught.value.error_code == "FEEDBACK_UNLINKED"
    assert "rank 2, 3, 4, 5, 6" in caught.value.message
    assert any("rank 2, 3, 4, 5, 6" in text for text in diagnose(log, None).unclear)


def test_ranks_are_linked_through_others(event):
    def at(rank, document, sessions):
        return [event(rank=rank, document=document, session=f"{document}{rank}{s}") for s in range(sessions)]

    events = at(1, "a", 10) + at(2, "a", 12) + at(2, "b", 10) + at(3, "b", 10) + at(4, "c", 30) + at(5, "b", 9)
    log = log_of(events)
    assert links(log) == [(0, 1, 10), (1, 2, 10), (1, 4, 9), (2, 4, 9)]
    assert unlinked(log) == [3, 4]


def test_users_with_few_events_are_fitted_as_one(crowd, truth):
    events = list(make_events(crowd, *truth, 600, shuffle=0.5))
    found = fit_examination(log_of(events))
    assert 0 < found.facts["pooled"] < 5 or found.facts["own"] == 5
    few = fit_examination(log_of(events[: 6 * 150]))
    assert few.facts["pooled"] >= 1
    assert len(few.tables) == few.facts["own"]


def test_examination_is_read_from_a_law_and_from_files(tmp_path):
    assert read_examination("power:2").others[:3] == (1.0, 0.25, 1 / 9)
    file = tmp_path / "looks.json"
    file.write_text(json.dumps({"eta": {"ann": 2, "bob": 0}, "others": 1}))
    found = read_examination(str(file), str.upper)
    assert found.tables == {"ANN": power(2.0), "BOB": power(0.0)}
    file.write_text(json.dumps({"table": {"ann": [1, 0.5]}, "others": [0.9]}))
    found = read_examination(str(file))
    assert (found.tables, found.others) == ({"ann": (1.0, 0.5)}, (0.9,))
    file.write_text(json.dumps(found.as_dict()))  # what was told can be given again
    assert read_examination(str(file)).tables == found.tables


@pytest.mark.parametrize(
    "given",
    [
        "[]",
        "{",
        '{"eta": 1}',
        '{"eta": {"a": -1}}',
        '{"eta": {"a": true}}',
        '{"eta": {"a": "x"}}',
        '{"table": {"a": [0.5]}}',
        '{"table": {"a": [0]}, "others": [1]}',
        '{"table": {"a": []}, "others": [1]}',
        '{"table": {"a": "1"}, "others": [1]}',
        '{"others": 1}',
    ],
)
def test_an_examination_that_cannot_be_used_is_refused(given, tmp_path):
    (tmp_path / "looks.json").write_text(given)
    with pytest.raises(UsageError, match="FEEDBACK_EXAMINATION"):
        read_examination(str(tmp_path / "looks.json"))


@pytest.mark.parametrize("spec", ["power:", "power:x", "power:nan", "power:-1", "nowhere.json", ""])
def test_an_examination_that_is_none_is_refused(spec):
    with pytest.raises(UsageError, match="FEEDBACK_EXAMINATION"):
        read_examination(spec)


def test_beyond_the_last_known_rank_stands_the_last_and_nothing_is_divided_by_zero(event):
    log = log_of([event(rank=r, document=str(r), session=str(r), clicked=True) for r in (1, 2, 5)])
    looks = Examination((1.0, 1e-9))
    assert looks.table(log).tolist() == [[1.0, FLOOR, FLOOR, FLOOR, FLOOR]]
    assert np.isfinite(relevance(log, looks)).all()
