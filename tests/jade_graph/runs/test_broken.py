"""Damaged pages of a run store are a typed error wherever they are met, and the file stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import StoreError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.store import RunStore

KNOWN: list[str] = []
USES: dict[str, Callable[[RunStore], Any]] = {
    "list": lambda store: store.list_runs(),
    "look": lambda store: store.list_runs(RunFilter(text="Who")),
    "get": lambda store: store.get(KNOWN[0]),
    "iterate": lambda store: list(store.iter_runs()),
}


@pytest.fixture
def broken(scripted: Any, passages: Any, tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with RunStore(path) as store:
        KNOWN[:] = [JadeGraph(scripted(), retriever=passages, recorder=store).run("Who?").id]
        with store.engine.connect() as db:
            root = db.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'runs'").scalar_one()
            size = db.exec_driver_sql("PRAGMA page_size").scalar_one()
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("name", USES)
def test_reading(broken: Path, name: str) -> None:
    before = broken.read_bytes()
    with pytest.raises(StoreError) as caught, RunStore(broken) as store:
        USES[name](store)
    assert caught.value.error_code == "STORE_BROKEN"
    assert caught.value.hint
    assert broken.read_bytes() == before


def test_a_run_is_answered_all_the_same(broken: Path, scripted: Any, passages: Any) -> None:
    store = RunStore(broken)
    run = asyncio.run(JadeGraph(scripted(), retriever=passages, recorder=store).arun("Who?"))
    assert run.status == "answered"
    assert "damaged" in (run.record_error or "")
    store.close()
