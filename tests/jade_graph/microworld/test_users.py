"""Simulated users: seeded, with the habits that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from jade_graph.errors import UsageError
from jade_graph.microworld.users import ETAS, attraction, make_crowd, make_events, make_log


def test_users_have_the_constants_of_the_paper():
    crowd = make_crowd(60)
    assert crowd.etas == ETAS == (2.5, 2.0, 1.0, 0.8, 0.0)
    assert crowd.share[0] / crowd.share[1] == pytest.approx(1.25)
    assert ((crowd.likes > 0).sum(axis=1) == 30).all()
    assert crowd.examination(3)[2] == pytest.approx([1, 1 / 2, 1 / 3])
    assert attraction([0, 2, 4]) == pytest.approx([0.1, 0.55, 1.0])


def test_clicks_follow_examination_and_relevance():
    crowd = make_crowd(2, [1.0], seed=1)
    log = make_log(crowd, np.array([[0.0, 4.0, 2.0]] * 2), 20_000, seed=1)
    rate = np.bincount(log.rank, log.click) / np.bincount(log.rank)
    assert rate == pytest.approx([0.1, 0.5, 0.55 / 3], abs=0.015)


def test_events_are_seeded_and_some_lists_are_shuffled():
    lists, relevant = {"a": ["1", "2", "3"], "b": ["4"]}, {"a": ["2"], "b": []}
    crowd = make_crowd(2, seed=1)
    first, again = (list(make_events(crowd, lists, relevant, 200, shuffle=0.5, seed=4)) for _ in "ab")
    assert first == again != list(make_events(crowd, lists, relevant, 200, shuffle=0.5, seed=5))
    places = {e.rank for e in first if e.document == "2"}
    assert places == {1, 2, 3}
    assert {e.rank for e in make_events(crowd, lists, relevant, 200, shuffle=0.0) if e.document == "2"} == {2}


@pytest.mark.parametrize("etas", [[], [-1.0], [float("nan")], [11.0]])
def test_users_that_cannot_be_are_refused(etas):
    with pytest.raises(UsageError, match="MICROWORLD_USERS"):
        make_crowd(4, etas)
    with pytest.raises(UsageError, match="MICROWORLD_USERS"):
        make_crowd(1)
