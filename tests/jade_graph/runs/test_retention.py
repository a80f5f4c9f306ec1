"""Old runs go whole; what somebody learns from, rated or is working on stays."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs import feedback, retention, tables
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.retention import Rule, choose, remove
from jade_graph.runs.store import RunStore
from jade_graph.types import Run

DAY = 86_400.0
NOW = 100 * DAY


@pytest.fixture
def store(tmp_path: Path, scripted: Any, passages: Any) -> Any:
    """Runs r0 .. r9, begun i days ago: r3 is rated, r4 of a rollout, r0 and r5 under way, the rest whole."""
    with RunStore(tmp_path / "runs.db") as store:
        run = JadeGraph(scripted(), retriever=passages, recorder=store).run("Who?")
        for i in range(10):
            began = replace(run, id=f"r{i}", started_at=NOW - i * DAY - 60, transitions=(), trace=())
            if i in (0, 5):
                began = Run(f"r{i}", "Q?", "", "jade", 0, started_at=NOW - i * DAY - 60)
            store.run_started(began)
            for row in run.transitions:
                store.transition(replace(row, run_id=f"r{i}"))
            store.trace_nodes(f"r{i}", 0, {node.id: node for node in run.trace})
        store.flush()
        feedback.add(store.engine, Feedback("r3", rating=1.0))
        with store.engine.begin() as db:
            db.execute(tables.rollout_runs.insert(), [{"run_id": "r4", "rollout_id": "one"}])
            db.execute(tables.runs.delete().where(tables.runs.c.id == run.id))
            for table in (tables.transitions, tables.trace_nodes):
                db.execute(table.delete().where(table.c.run_id == run.id))
        yield store


@pytest.mark.parametrize(
    ("rule", "gone", "kept"),
    [
        (Rule(keep=7), "987", (0, 0, 0)),
        (Rule(older_than_s=2.5 * DAY), "98765", (0, 1, 1)),
        (Rule(older_than_s=2.5 * DAY, rollouts=True), "987654", (0, 0, 1)),
        (Rule(older_than_s=2.5 * DAY, rollouts=True, rated=True), "9876543", (0, 0, 0)),
        (Rule(keep=0), "9876521", (1, 1, 1)),
        (Rule(keep=8, older_than_s=2.5 * DAY), "98", (0, 0, 0)),
        (Rule(keep=2, older_than_s=7.5 * DAY), "98", (0, 0, 0)),
        (Rule(keep=100), "", (0, 0, 0)),
    ],
)
def test_who_goes(store: RunStore, rule: Rule, gone: str, kept: tuple[int, int, int]) -> None:
    chosen = choose(store.engine, rule, now=NOW)
    assert "".join(each.removeprefix("r") for each in chosen.ids) == gone
    assert (chosen.running, chosen.rollouts, chosen.rated, chosen.total) == (*kept, 10)
    assert store.count() == 10


def test_a_run_goes_whole_and_the_rest_is_as_it_was(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BLOCK", 2)
    before = {name: store.get(name) for name in ("r1", "r2")}
    chosen = choose(store.engine, Rule(older_than_s=2.5 * DAY, rollouts=True, rated=True), now=NOW)
    assert list(remove(store.engine, chosen.ids)) == [2, 4, 6, 7]
    with store.engine.connect() as db:
        for table in (tables.transitions, tables.trace_nodes, tables.feedback, tables.rollout_runs):
            left = set(db.execute(sa.select(table.c.run_id)).scalars())
            assert left <= {"r0", "r1", "r2"}, table.name
    assert {name: store.get(name) for name in ("r1", "r2")} == before


def test_the_room_is_given_back(store: RunStore, tmp_path: Path) -> None:
    def pages() -> tuple[int, int]:
        with sqlite3.connect(tmp_path / "runs.db") as db:
            found = tuple(db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        db.close()
        return found  # type: ignore[return-value]

    list(remove(store.engine, choose(store.engine, Rule(keep=1, rollouts=True, rated=True), now=NOW).ids))
    assert pages()[1] > 0
    retention.compact(store.engine)
    assert pages()[1] == 0


def test_what_is_no_rule(store: RunStore) -> None:
    with pytest.raises(UsageError, match="PRUNE_RULE"):
        choose(store.engine, Rule())
    assert [retention.seconds(text) for text in ("12h", "30d", "1.5w")] == [43_200, 30 * DAY, 10.5 * DAY]
    for text in ("", "30", "d", "-1d", "30 days", "30m"):
        with pytest.raises(UsageError, match="PRUNE_AGE"):
            retention.seconds(text)
