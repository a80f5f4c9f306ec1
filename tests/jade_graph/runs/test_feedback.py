"""Feedback: stored beside its run, read back with it, a reward."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from jade_graph import plugins
from jade_graph.errors import StoreError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs import feedback
from jade_graph.runs.export import export_store, read_export
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.store import RunStore
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.types import Question, Run


@pytest.fixture
async def recorded(tmp_path: Path, scripted, passages):
    with RunStore(tmp_path / "runs.db") as store:
        yield store, await JadeGraph(scripted(), retriever=passages, recorder=store, k=3).arun("who?")


def test_ratings_are_averaged_and_documents_joined(recorded):
    store, run = recorded
    feedback.add(store.engine, Feedback(run.id, 1.0, clicked=("p1",), source="ann", created_at=1.0))
    feedback.add(store.engine, Feedback(run.id, -0.5, clicked=("p1", "p0"), used=("p2",), created_at=2.0))
    feedback.add(store.engine, Feedback(run.id, comment="no rating", created_at=3.0))
    wanted = {"rating": 0.25, "ratings": 2, "count": 3, "clicked": ["p1", "p0"], "used": ["p2"]}
    assert store.get(run.id).metadata[feedback.KEY] == wanted
    assert [r.metadata[feedback.KEY] for r in store.iter_runs()] == [wanted]
    assert run.metadata.get(feedback.KEY) is None  # the run that was asked is as it was
    with store.engine.connect() as db:
        found = feedback.of_runs(db, [run.id, "other"])
    assert [f.source for f in found[run.id]] == ["ann", "", ""]
    assert list(found) == [run.id]


def test_an_export_carries_it_and_the_reward_reads_it(recorded, tmp_path):
    store, run = recorded
    assert plugins.load("jade.rewards", "feedback") is feedback.reward
    spec, question = RewardSpec(outcome="feedback"), Question("", "who?")
    export_store(store, tmp_path / "before")
    feedback.add(store.engine, Feedback(run.id, -1.0))
    export_store(store, tmp_path / "after")
    before, after = (read_export(tmp_path / name).runs[0] for name in ("before", "after"))
    assert score_run(before, question, spec).outcome is None  # unscored, not 0
    assert score_run(after, question, spec).outcome == {"feedback": -1.0}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"rating": 1.5}, "FEEDBACK_RATING"),
        ({"rating": float("nan")}, "FEEDBACK_RATING"),
        ({}, "FEEDBACK_EMPTY"),
        ({"clicked": ("p0", "p9")}, "FEEDBACK_DOCUMENT"),
        ({"used": ("",)}, "FEEDBACK_DOCUMENT"),
    ],
)
def test_what_cannot_be_meant_is_refused(recorded, given, code):
    store, run = recorded
    with pytest.raises(UsageError) as caught:
        feedback.add(store.engine, Feedback(run.id, **given))
    assert caught.value.error_code == code
    assert feedback.KEY not in store.get(run.id).metadata


def test_feedback_on_no_run_is_refused(recorded):
    store, _ = recorded
    with pytest.raises(StoreError) as caught:
        feedback.add(store.engine, Feedback("nope", 1.0))
    assert caught.value.error_code == "RUN_NOT_FOUND"


def test_a_store_made_before_there_was_feedback_takes_it(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        run = Run("r", "who?", "", "jade", 0, "answered")
        store.run_started(run)
        store.run_finished(run)
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("DROP TABLE feedback")
        db.execute("DROP TABLE jade_store_revision")  # nor were revisions written down
    db.close()
    with RunStore(tmp_path / "runs.db") as store:
        feedback.add(store.engine, Feedback("r", 0.5))
        assert store.get("r").metadata[feedback.KEY]["rating"] == 0.5
