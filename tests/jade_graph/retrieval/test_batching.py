"""Each item gets its own result, whatever happens to its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from jade_graph.retrieval.batching import Batcher


class Gate:
    """Work that waits to be let through, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.open.wait(20)
        return [ValueError(str(i)) if i < 0 else i * 10 for i in items]


def test_what_arrives_during_a_batch_forms_the_next() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=3)
    first = batcher.submit(1)
    assert gate.entered.wait(20)
    rest = [batcher.submit(i) for i in (2, 3, 4, 5)]
    gate.open.set()
    assert [f.result(20) for f in (first, *rest)] == [10, 20, 30, 40, 50]
    assert gate.batches == [[1], [2, 3, 4], [5]]
    batcher.close()


def test_one_items_error_is_its_own() -> None:
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate)
    good, bad = batcher.submit(1), batcher.submit(-1)
    assert good.result(20) == 10
    with pytest.raises(ValueError, match="-1"):
        bad.result(20)
    assert batcher.submit(2).result(20) == 20
    batcher.close()


def test_a_failing_batch_fails_its_own_items_only() -> None:
    calls = []

    def work(items: Sequence[int]) -> list[int | Exception]:
        calls.append(list(items))
        if 0 in items:
            raise RuntimeError("down")
        return list(items)

    batcher = Batcher(work)
    with pytest.raises(RuntimeError, match="down"):
        batcher.submit(0).result(20)
    assert batcher.submit(7).result(20) == 7
    batcher.close()


def test_a_withdrawn_item_is_not_worked_on() -> None:
    gate = Gate()
    batcher = Batcher(gate)
    first = batcher.submit(1)
    assert gate.entered.wait(20)
    withdrawn, kept = batcher.submit(2), batcher.submit(3)
    assert withdrawn.cancel()
    gate.open.set()
    assert (first.result(20), kept.result(20)) == (10, 30)
    assert gate.batches == [[1], [3]]
    batcher.close()


def test_closing_finishes_what_is_queued_and_takes_no_more() -> None:
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate)
    futures = [batcher.submit(i) for i in range(10)]
    batcher.close()
    assert [f.result(0) for f in futures] == [i * 10 for i in range(10)]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1)
