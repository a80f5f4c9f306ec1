"""Work of concurrent callers done in batches by one thread.

Invariant: every submitted item gets its own result or its own error; what arrives while a batch runs forms the next
one, so nobody waits for a window to close and a single caller is never held up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls `work` with a list of items; it returns one result or one exception per item.

    Args:
        work: runs in the batcher's own thread, one call at a time.
        max_batch: items per call at most.
        name: of the thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_batch: int = 64,
        name: str = "batcher",
    ) -> None:
        self._work, self._max_batch = work, max_batch
        self._lock = threading.Lock()
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._running = False
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)  # starts its thread at the first item

    def submit(self, item: Item) -> Future[Result]:
        """Queue one item. Cancelling the future withdraws it if its batch has not begun."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((item, future))
            if not self._running:
                self._running = True
                self._pool.submit(self._drain)
        return future

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)

    def _drain(self) -> None:
        while True:
            with self._lock:
                taken, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                if not taken:
                    self._running = False
                    return
            batch = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
            if not batch:
                continue
            results: Sequence[Result | Exception]
            try:
                results = self._work([item for item, _ in batch])
            except Exception as error:  # handed to every caller of this batch
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
