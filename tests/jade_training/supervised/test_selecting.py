"""What is kept of a role comes evenly from its sources, by the seed, in the order in which it came."""

from __future__ import annotations

import pytest

from jade_graph.errors import UsageError
from jade_graph.microworld.shown import Shown
from jade_graph.types import Message
from jade_training.supervised.selecting import at_most, limits_of


def shown(source: str, role: str, count: int) -> list[Shown]:
    return [Shown(f"{source}{i}", role, (Message("user", str(i)),), "x") for i in range(count)]


def test_a_role_has_equal_parts_of_its_sources_as_far_as_these_go() -> None:
    sources = [shown("a", "AG", 50) + shown("a", "PL", 5), shown("b", "AG", 4), shown("c", "AG", 50)]
    kept = at_most(sources, {"AG": 24})
    count = {name: sum(s.question_id[0] == name and s.role == "AG" for s in kept) for name in "abc"}
    assert count == {"a": 10, "b": 4, "c": 10}
    assert sum(s.role == "PL" for s in kept) == 5
    everything = [s for source in sources for s in source]
    assert [everything.index(s) for s in kept] == sorted(everything.index(s) for s in kept)
    assert at_most(sources, {"AG": 24}) == kept != at_most(sources, {"AG": 24}, seed=1)
    assert at_most(sources, {"AG": 0}) == [s for s in everything if s.role == "PL"]
    assert at_most(sources, {}) == everything


def test_plans_are_counted_apart_where_they_have_a_limit() -> None:
    def planned(plan: str, count: int) -> list[Shown]:
        return [
            Shown(f"{plan}{i}", "PL", (Message("user", "q"),), f"<workflow>{plan}</workflow>") for i in range(count)
        ]

    sources = [planned("R,AG", 40) + planned("QDS", 9) + planned("QDP", 3), shown("b", "AG", 4)]
    kept = at_most(sources, {"PL QDS": 5, "PL R,AG": 7, "PL": 2})
    actions = [s.action for s in kept if s.role == "PL"]
    counts = {plan: actions.count(f"<workflow>{plan}</workflow>") for plan in ("R,AG", "QDS", "QDP")}
    assert counts == {"R,AG": 7, "QDS": 5, "QDP": 2}


def test_limits_are_read_and_what_is_none_is_refused() -> None:
    assert limits_of(["AG=7, DS=3", "PL=1"]) == {"AG": 7, "DS": 3, "PL": 1}
    assert limits_of(["PL R,AG=250,DS=2"]) == {"PL R,AG": 250, "DS": 2}
    for wrong in ("AG", "AG=", "=3", "AG=x", "AG=-1"):
        with pytest.raises(UsageError, match="BAD_MOST"):
            limits_of([wrong])
