"""Text that a database cannot hold costs no run: surrogates and NUL in every text column, the exact ids kept."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs import store_read, tables
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.store import RunStore
from jade_graph.runs.text import String, Text, clean
from jade_graph.studio import index
from jade_graph.types import Question

ODD = "a\x00b\ud800c \u00e9"
HELD = "a\ufffdb?c \u00e9"


def test_clean() -> None:
    assert clean(ODD) == HELD
    assert clean("plain \u00e9\u4e2d\U0001f600") == "plain \u00e9\u4e2d\U0001f600"
    assert clean("\x00") == "\ufffd"
    assert clean(clean(ODD)) == clean(ODD)


@pytest.mark.parametrize("tables_", [tables.metadata, index.rows.metadata])
def test_every_text_column_is_cleaned(tables_: sa.MetaData) -> None:
    for table in tables_.tables.values():
        for column in table.columns:
            if isinstance(column.type, sa.String | sa.Text) or column.type.python_type is str:
                assert isinstance(column.type, String | Text), f"{table.name}.{column.name}"


def odd(record: Any) -> Any:
    """The record with every text of it odd, but for those that are one of few words."""
    kept = ("id", "run_id", "status", "finish_reason", "order", "trace_node", "parent", "role", "node")
    texts = {f.name: ODD for f in fields(record) if isinstance(getattr(record, f.name), str) and f.name not in kept}
    return replace(record, **texts)


async def test_a_run_of_odd_text_is_kept(scripted: Any, passages: Any, tmp_path: Path) -> None:
    run = await JadeGraph(scripted(), retriever=passages).arun(Question("q\ud800", "Who?"))
    with RunStore(tmp_path / "runs.db") as store:
        actions = tuple(odd(t) for t in run.transitions)
        written = replace(odd(run), transitions=actions, metadata={ODD: ODD})
        store.run_started(written)
        for action in actions:
            store.transition(action)
        store.trace_nodes(run.id, run.attempt, {node.id: odd(node) for node in run.trace})
        store.run_finished(written)
        store.flush()
        read = store.get(run.id)
        assert read.question == read.answer == HELD
        assert [t.action_text for t in read.transitions] == [HELD] * len(actions)
        assert [t.action_token_ids for t in read.transitions] == [t.action_token_ids for t in run.transitions]
        assert [t.prompt_token_ids for t in read.transitions] == [t.prompt_token_ids for t in run.transitions]
        assert [r.id for r in store.iter_runs()] == [run.id]
        assert store.count(RunFilter(question_id=ODD)) == 1


@pytest.mark.parametrize("text", ["\x00", "\x00zzz", "\ud800z", "zzz\x00"])
def test_looking_for_what_no_text_holds_finds_nothing(store_with_a_run: RunStore, text: str) -> None:
    assert store_with_a_run.count(RunFilter(text="Who")) == 1
    assert store_with_a_run.count(RunFilter(text=text)) == 0
    with pytest.raises(Exception, match="RUN_NOT_FOUND"):
        store_with_a_run.get("\x00")


@pytest.fixture
def store_with_a_run(scripted: Any, passages: Any, tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "runs.db")
    JadeGraph(scripted(), retriever=passages, recorder=store).run("Who?")
    store.flush()
    return store


def test_a_rollout_of_odd_ids_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        for _ in range(2):
            begun = store_read.begin_rollout(store.engine, ODD, {"dataset": ODD, "n": 1})
            assert begun == {"dataset": ODD, "n": 1}
            store_read.add_runs(store.engine, ODD, ["1", "2"])
        assert store_read.rollout_ids(store.engine) == [HELD]
        assert store_read.unfinished(store.engine, rollout=ODD).waiting == 2
