"""The batcher with a runner that needs no model: who is batched with whom, who fails, who is told."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.batcher import Batcher, Job, Signals, Stats, choose
from jade_graph.errors import BackboneError
from jade_graph.types import Completion, Sampling

DONE = Completion("x", (1,), (0.0,), "stop", "v")


class Runner:
    """Answers jobs; records batches; waits for `gate` where it is shut; fails on prompts that `bad` names."""

    def __init__(self, bad: Callable[[Sequence[Job]], Exception | None] = lambda jobs: None) -> None:
        self.batches: list[list[int]] = []
        self.workers: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self._bad = bad

    def __call__(self, jobs: Sequence[Job], signals: Signals, stats: Stats) -> None:
        self.batches.append([len(job.prompt) for job in jobs])
        self.workers.add(threading.get_ident())
        self.entered.release()
        while not self.gate.wait(0.01):
            if signals.stopping:
                return
        error = self._bad(jobs)
        if error is not None:
            raise error
        for job in jobs:
            job.resolve(DONE)


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def batcher(runner: Runner) -> Iterator[Batcher]:
    batcher = Batcher(runner, cap=4)
    yield batcher
    batcher.close()


def submit(batcher: Batcher, *lengths: int) -> list[Job]:
    return [batcher.submit([0] * length, Sampling()) for length in lengths]


def test_what_arrives_during_a_batch_forms_the_next_sorted_by_length(batcher: Batcher, runner: Runner) -> None:
    runner.gate.clear()
    jobs = submit(batcher, 9)
    runner.entered.acquire()
    jobs += submit(batcher, 5, 3, 4)
    runner.gate.set()
    wait([job.future for job in jobs])
    assert runner.batches == [[9], [3, 4, 5]]
    assert (batcher.stats.batches, batcher.stats.rows) == (2, 4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_a_batch_is_neighbours_in_length_with_the_oldest_among_them(lengths: list[int], cap: int) -> None:
    waiting = [Job([0] * length, Sampling()) for length in lengths]
    batch = choose(waiting, cap)
    assert len(batch) == min(cap, len(waiting))
    assert any(job is waiting[0] for job in batch)
    chosen = [len(job.prompt) for job in batch]
    assert chosen == sorted(chosen)
    rest = sorted(lengths)
    for length in chosen:
        rest.remove(length)
    assert not any(chosen[0] < length < chosen[-1] for length in rest)


def test_no_batch_is_larger_than_the_cap(batcher: Batcher, runner: Runner) -> None:
    runner.gate.clear()
    jobs = submit(batcher, 1)
    runner.entered.acquire()
    jobs += submit(batcher, *range(10, 0, -1))
    runner.gate.set()
    wait([job.future for job in jobs])
    assert max(map(len, runner.batches)) == 4
    assert sorted(length for batch in runner.batches for length in batch) == sorted([1, *range(1, 11)])


def test_a_job_cancelled_in_the_queue_is_never_run(batcher: Batcher, runner: Runner) -> None:
    runner.gate.clear()
    submit(batcher, 1)
    runner.entered.acquire()
    second, third = submit(batcher, 2, 3)
    assert second.future.cancel()
    runner.gate.set()
    assert third.future.result() is DONE
    assert runner.batches == [[1], [3]]
    assert batcher.stats.cancelled == 1


def test_a_running_job_can_be_cancelled_and_the_batch_hears_of_it() -> None:
    heard: list[int] = []

    def run(jobs: Sequence[Job], signals: Signals, stats: Stats) -> None:
        jobs[0].future.cancel()
        heard.append(signals.cancellations)
        for job in jobs:
            job.resolve(DONE)  # too late for the cancelled one, and no error

    batcher = Batcher(run)
    job = batcher.submit([0], Sampling())
    with pytest.raises(CancelledError):
        job.future.result()
    batcher.close()
    assert heard == [1]


def test_one_bad_request_fails_alone(runner: Runner) -> None:
    runner = Runner(lambda jobs: ValueError("odd one") if any(len(job.prompt) == 3 for job in jobs) else None)
    batcher = Batcher(runner)
    runner.gate.clear()
    submit(batcher, 1)
    runner.entered.acquire()
    good, bad, other = submit(batcher, 2, 3, 4)
    runner.gate.set()
    assert good.future.result() is other.future.result() is DONE
    error = bad.future.exception()
    assert isinstance(error, BackboneError)
    assert error.error_code == "BACKBONE_GENERATION"
    assert isinstance(error.__cause__, ValueError)
    assert runner.batches == [[1], [2, 3, 4], [2], [3], [4]]
    assert batcher.stats.failures == 1
    batcher.close()


def test_rows_that_were_answered_before_the_failure_are_not_run_again() -> None:
    calls: list[int] = []

    def run(jobs: Sequence[Job], signals: Signals, stats: Stats) -> None:
        calls.append(len(jobs))
        jobs[0].resolve(DONE)
        if len(jobs) > 1:
            raise RuntimeError("later")

    batcher = Batcher(run)
    gate = batcher._ready
    with gate:  # both in one batch
        jobs = [Job([0], Sampling()), Job([0, 0], Sampling())]
        batcher._queue.extend(jobs)
    jobs += submit(batcher, 3)
    wait([job.future for job in jobs])
    batcher.close()
    assert calls == [3, 1, 1]


def test_a_batch_that_is_too_large_is_halved() -> None:
    runner = Runner(lambda jobs: MemoryError() if len(jobs) > 2 else None)
    batcher = Batcher(runner)
    runner.gate.clear()
    submit(batcher, 1)
    runner.entered.acquire()
    jobs = submit(batcher, 2, 3, 4, 5)
    runner.gate.set()
    assert all(job.future.result() is DONE for job in jobs)
    assert runner.batches == [[1], [2, 3, 4, 5], [2, 3], [4, 5]]
    batcher.close()


def test_a_row_that_is_too_large_alone_says_so() -> None:
    batcher = Batcher(Runner(lambda jobs: MemoryError()))
    (job,) = submit(batcher, 5)
    error = job.future.exception()
    batcher.close()
    assert isinstance(error, BackboneError)
    assert error.error_code == "BACKBONE_OUT_OF_MEMORY"


def test_typed_errors_stay_themselves() -> None:
    typed = BackboneError("no", code="BACKBONE_NOT_FINITE")
    batcher = Batcher(Runner(lambda jobs: typed))
    (job,) = submit(batcher, 5)
    assert job.future.exception() is typed
    batcher.close()


def test_closing_fails_what_is_queued_and_in_flight_and_refuses_more(batcher: Batcher, runner: Runner) -> None:
    runner.gate.clear()
    (running,) = submit(batcher, 1)
    runner.entered.acquire()
    (queued,) = submit(batcher, 2)
    batcher.close()
    for job in (running, queued):
        error = job.future.exception()
        assert isinstance(error, BackboneError)
        assert error.error_code == "BACKBONE_CLOSED"
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        submit(batcher, 3)
    assert batcher.closed
    batcher.close()


def test_several_loops_and_threads_share_one_worker(batcher: Batcher, runner: Runner) -> None:
    results: list[Completion] = []

    def loop() -> None:
        async def ask() -> list[Completion]:
            jobs = submit(batcher, 1, 2, 3)
            return await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))

        results.extend(asyncio.run(ask()))

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DONE] * 12
    assert len(runner.workers) == 1
    assert batcher._thread is not None
    assert runner.workers == {batcher._thread.ident}


def test_a_cap_that_holds_nothing_is_refused() -> None:
    with pytest.raises(BackboneError, match="BACKBONE_OPTION"):
        Batcher(Runner(), cap=0)


def test_answered_jobs_are_let_go(batcher: Batcher) -> None:
    (job,) = submit(batcher, 1)
    job.future.result()
    submit(batcher, 1)[0].future.result()
    reference = weakref.ref(job.future)
    del job
    gc.collect()
    assert reference() is None


class Joining(Runner):
    """Takes what is waiting before it answers, `most` at a time, and once more after."""

    def __init__(self, most: int, bad: Callable[[Sequence[Job]], Exception | None] = lambda jobs: None) -> None:
        super().__init__(bad)
        self.most = most
        self.joined: list[list[int]] = []

    def __call__(self, jobs: Sequence[Job], signals: Signals, stats: Stats) -> None:
        alone = [job for job in jobs if not job.done]
        super().__call__(alone[:0], signals, stats)
        self.batches[-1] = [len(job.prompt) for job in alone]
        while signals.waiting and (more := signals.take(self.most)):
            self.joined.append([len(job.prompt) for job in more])
            alone += more
        error = self._bad(alone)
        if error is not None:
            raise error
        for job in alone:
            job.resolve(DONE)


def test_a_batch_takes_what_arrives_while_it_runs() -> None:
    runner = Joining(2)
    runner.gate.clear()
    batcher = Batcher(runner)
    jobs = submit(batcher, 9)
    runner.entered.acquire()
    jobs += submit(batcher, 5, 3, 4)
    runner.gate.set()
    wait([job.future for job in jobs])
    batcher.close()
    assert runner.batches == [[9]]
    assert [sorted(group) for group in runner.joined] == [[3, 5], [4]] or runner.joined == [[4, 5], [3]]
    assert all(group == sorted(group) for group in runner.joined)
    assert (batcher.stats.batches, batcher.stats.admissions, batcher.stats.rows) == (1, 3, 4)


def test_a_failure_concerns_those_who_joined_too_and_nobody_joins_a_second_try() -> None:
    runner = Joining(9, lambda jobs: ValueError("odd one") if any(len(job.prompt) == 3 for job in jobs) else None)
    runner.gate.clear()
    batcher = Batcher(runner)
    (first,) = submit(batcher, 9)
    runner.entered.acquire()
    good, bad = submit(batcher, 2, 3)
    runner.gate.set()
    assert good.future.result() is first.future.result() is DONE
    assert isinstance(bad.future.exception(), BackboneError)
    batcher.close()
    assert runner.joined == [[2, 3]]
    assert runner.batches == [[9], [9], [2], [3]]


def test_who_was_cancelled_in_the_queue_does_not_join() -> None:
    runner = Joining(9)
    runner.gate.clear()
    batcher = Batcher(runner)
    submit(batcher, 1)
    runner.entered.acquire()
    gone, stays = submit(batcher, 2, 3)
    gone.future.cancel()
    runner.gate.set()
    assert stays.future.result() is DONE
    batcher.close()
    assert runner.joined == [[3]]
    assert batcher.stats.cancelled == 1
