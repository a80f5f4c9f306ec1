"""Diagnosis: figures by hand, and what too few events cannot tell."""

from __future__ import annotations

import pytest

from jade_graph.feedback.diagnosis import diagnose
from jade_graph.feedback.examination import Examination
from jade_graph.feedback.log import log_of


@pytest.fixture
def log(event):
    """ann asks q three times, bob asks q once and r four times; two passages a list."""
    events = []
    for user, query, times in (("ann", "q", 3), ("bob", "q", 1), ("bob", "r", 4)):
        for s in range(times):
            for rank, document in enumerate("ab", 1):
                clicked = user == "ann" and rank == 1
                events.append(
                    event(
                        user=user,
                        query=query,
                        rank=rank,
                        document=document,
                        session=f"{user}{query}{s}",
                        clicked=clicked,
                    )
                )
    return log_of(events)


def test_figures_by_hand(log):
    looks = Examination((1.0, 1.0), {"ann": (1.0, 0.2), "bob": (1.0, 0.6)})
    found = diagnose(log, looks)
    assert found.counts == {"events": 16, "sessions": 8, "users": 2, "queries": 2, "pairs": 4, "clicks": 3}
    assert [(r.rank, r.shown, r.clicks, r.least, r.most) for r in found.ranks] == [(1, 8, 3, 1, 1), (2, 8, 0, 0.2, 0.6)]
    assert found.ranks[1].examined == pytest.approx((3 * 0.2 + 5 * 0.6) / 8)
    assert [(u.user, u.share, u.clicks, u.examined) for u in found.users] == [
        ("bob", 0.625, 0, [1.0, 0.6]),
        ("ann", 0.375, 3, [1.0, 0.2]),
    ]
    overall, of_q, of_r = 0.45, (3 * 0.2 + 0.6) / 4, 0.6
    assert found.expected_bias["oblivious"] == pytest.approx((1 - of_q / overall + of_r / overall - 1) / 4)
    assert found.expected_bias["naive"] == pytest.approx((0.7 + 0.4) / 4)
    assert found.expected_bias["user-aware"] == found.expected_bias["per-impression"] == 0
    assert found.effective["naive"] == [4, 4, 4]
    assert found.effective["user-aware"][1] == pytest.approx((2.4 + 4) / 2)


def test_too_few_events_say_so(log):
    fitted = Examination((1.0, 0.5), how="fitted", facts={"ended": False})
    told = " ".join(diagnose(log, fitted).unclear)
    for words in (
        "rank 2 cannot be told",
        "2 of 2 users have fewer than 200",
        "looks at rank 1",
        "did not settle",
        "4 of 4 passages were surely seen fewer than 10",
        "known to no better than 0.5",
        "unknown, not irrelevant",
    ):
        assert words in told


def test_without_an_examination_what_needs_it_is_left_out(log):
    found = diagnose(log, None)
    assert (found.effective, found.expected_bias, found.ordered, found.ranks[0].examined) == ({}, {}, None, None)
    assert found.as_dict()["counts"]["sessions"] == 8


def test_many_events_tell_orders(event):
    events = []
    for s in range(400):
        events += [event(session=str(s), document="a", clicked=s % 2 == 0), event(session=str(s), document="b")]
    found = diagnose(log_of(events), Examination())
    assert (found.ordered, found.wide) == (1.0, 0.0)
    assert len(found.unclear) == 1
