"""One queue and one worker thread: what arrives during a batch joins it where it can, or else forms the next.

Invariant: every submitted job ends exactly once, with a completion, an error or its cancellation; a job that fails
takes no other with it. Nothing here knows torch: `run` decodes a batch and resolves its jobs one by one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from jade_graph.backbones.watching import Watching
from jade_graph.errors import BackboneError, JadeError
from jade_graph.types import Completion, Sampling

DEFAULT_BATCH = 64


def closed_error() -> BackboneError:
    return BackboneError(
        "this backbone is closed.", code="BACKBONE_CLOSED", hint="load_backbone(...) again, and close it last"
    )


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way. The future may be cancelled at any time: it is never marked as running."""

    prompt: Sequence[int]
    sampling: Sampling
    future: Future[Completion] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)
    watching: Watching | None = None

    @property
    def done(self) -> bool:
        return self.future.done()

    def resolve(self, completion: Completion) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled between the last look and now
            self.future.set_result(completion)

    def fail(self, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(slots=True)
class Stats:
    """What the worker has done so far. `row_steps / steps` is the mean number of rows per decoding step.

    `rows` were decoded in `batches`, which they joined in `admissions` groups, the first of each batch among them.
    `prompt_tokens` were asked for, `padded_tokens` computed: with padding, without what prompts share.
    """

    batches: int = 0
    admissions: int = 0
    rows: int = 0
    steps: int = 0
    row_steps: int = 0
    prompt_tokens: int = 0
    padded_tokens: int = 0
    failures: int = 0
    cancelled: int = 0


def nobody(most: int) -> list[Job]:
    """A `Signals.take` of which nothing comes."""
    del most
    return []


class Signals:
    """What a running batch looks at between two decoding steps: cheap flags, no locks.

    `waiting` says that `take(most)` may give jobs, `most` of them at most, that the batch then has to answer too.
    """

    __slots__ = ("cancellations", "stopping", "take", "waiting")

    def __init__(self) -> None:
        self.cancellations = 0
        self.stopping = False
        self.waiting = False
        self.take = nobody


Runner = Callable[[Sequence[Job], Signals, Stats], None]


def no_memory_error(error: Exception) -> bool:
    """The default `splits`: a batch that Python itself could not hold."""
    return isinstance(error, MemoryError)


class Batcher:
    """Collects jobs from any thread or event loop and runs them in batches on its own thread.

    Args:
        run: decodes a batch; resolves each job as it finishes; may take further ones (`Signals.take`); may raise, and
            may leave jobs unresolved only then or when `signals.stopping` is set.
        cap: most rows in a batch at any time.
        splits: whether an error means that the batch was too large: it is then halved instead of run row by row.
    """

    def __init__(
        self, run: Runner, *, cap: int = DEFAULT_BATCH, splits: Callable[[Exception], bool] = no_memory_error
    ) -> None:
        if cap < 1:
            raise BackboneError(f"max_batch {cap!r} is not positive.", code="BACKBONE_OPTION", hint="max_batch=64")
        self._run = run
        self._cap = cap
        self._splits = splits
        self._queue: list[Job] = []
        self._ready = threading.Condition()
        self._signals = Signals()
        self.stats = Stats()
        self._thread: threading.Thread | None = None

    def submit(self, prompt: Sequence[int], sampling: Sampling, watching: Watching | None = None) -> Job:
        """Queue a request; `job.future` ends with its completion. Raises `BackboneError` BACKBONE_CLOSED."""
        job = Job(prompt, sampling, watching=watching)
        job.future.add_done_callback(self._count_cancellation)
        with self._ready:
            if self._signals.stopping:
                raise closed_error()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jade-backbone", daemon=True)
                self._thread.start()
            self._queue.append(job)
            self._signals.waiting = True
            self._ready.notify()
        return job

    def close(self) -> None:
        """Refuse new jobs, fail what is queued or in flight with BACKBONE_CLOSED, and wait for the worker to end."""
        with self._ready:
            self._signals.stopping = True
            self._ready.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    @property
    def closed(self) -> bool:
        return self._signals.stopping

    def _count_cancellation(self, future: Future[Completion]) -> None:
        if future.cancelled():
            self._signals.cancellations += 1

    def _work(self) -> None:
        while jobs := self._next():
            self._serve(jobs)
        with self._ready:
            left, self._queue = self._queue, []
        for job in left:
            job.fail(closed_error())

    def _next(self) -> list[Job]:
        """The first jobs of the next batch, sorted by prompt length; empty once closed."""
        with self._ready:
            while not self._signals.stopping:
                if batch := self._take(self._cap):
                    return batch
                self._ready.wait()
        return []

    def _take(self, most: int) -> list[Job]:
        """Up to `most` jobs off the queue, sorted by prompt length. The lock is held."""
        waiting = [job for job in self._queue if not job.done]
        self.stats.cancelled += len(self._queue) - len(waiting)
        batch = choose(waiting, most) if waiting and most > 0 else []
        taken = set(map(id, batch))
        self._queue = [job for job in waiting if id(job) not in taken]
        self._signals.waiting = bool(self._queue)
        self.stats.rows += len(batch)
        self.stats.admissions += bool(batch)
        return batch

    def _serve(self, jobs: list[Job]) -> None:
        """Run a batch that begins with these jobs and may take more, which a failure concerns as much."""

        def take(most: int) -> list[Job]:
            with self._ready:
                more = self._take(most)
            jobs[:] = [*(job for job in jobs if not job.done), *more]
            return more

        self._signals.take = take
        self._attempt(jobs)
        jobs.clear()  # the worker may wait long for the next batch

    def _attempt(self, jobs: Sequence[Job]) -> None:
        """Run a batch. If it fails: halve it when it was too large, else run its rows alone, so that only bad ones
        fail. Seeds make the second try draw what the first would have drawn.
        """
        self.stats.batches += 1
        too_large = False
        failure: Exception | None = None
        try:
            self._run(jobs, self._signals, self.stats)
        except Exception as error:  # whatever a model raises belongs to these requests, not to the worker
            too_large = self._splits(error)
            # Without its frames: they hold the tensors that the next try needs room for.
            failure = error.with_traceback(None)
        # Who is tried again is tried as it was, with nobody joining.
        self._signals.take = nobody
        left = [job for job in jobs if not job.done]
        if self._signals.stopping:
            for job in left:
                job.fail(closed_error())
        elif failure is not None and len(left) == 1:
            self.stats.failures += 1
            left[0].fail(generation_error(failure, too_large))
        elif failure is not None:
            middle = len(left) // 2
            parts = [left[:middle], left[middle:]] if too_large else [[job] for job in left]
            for part in filter(None, parts):
                self._attempt(part)


def generation_error(error: Exception, too_large: bool) -> JadeError:
    """What the caller of one request sees. A typed error stays itself; the cause is chained to any other."""
    if isinstance(error, JadeError):
        return error
    wrapped = BackboneError(
        f"the model failed on this request: {type(error).__name__}: {error}",
        code="BACKBONE_OUT_OF_MEMORY" if too_large else "BACKBONE_GENERATION",
        hint="a smaller max_context or model" if too_large else "the same request alone, to see whether it repeats",
    )
    wrapped.__cause__ = error
    return wrapped


def choose(waiting: Sequence[Job], cap: int) -> list[Job]:
    """At most `cap` neighbours in order of length, always with the oldest job among them, so that none starves."""
    order = sorted(range(len(waiting)), key=lambda index: len(waiting[index].prompt))
    oldest = order.index(0)
    first = max(0, min(oldest - cap // 2, len(order) - cap))
    return [waiting[index] for index in order[first : first + cap]]
