"""Running a coroutine from code that has no event loop.

Invariant: one background loop per process serves all such calls, so a backbone's queue sees them together and batches
them; the caller's own loop, if there is one, is never re-entered. A forked child starts a loop of its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from jade_graph.errors import UsageError

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds of one wait. A signal that comes just before a thread begins to wait, or that another thread is given, does
not end the wait: it is seen when the wait is over."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_left_behind: list[asyncio.AbstractEventLoop | None] = []


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the background loop and wait. An interrupt of the waiting thread cancels the coroutine.

    Raises:
        UsageError: SYNC_IN_LOOP when called on the background loop itself, which would wait for itself for ever.
    """
    future = _started(coroutine, "call was made", "await graph.arun(..)")
    try:
        while not wait([future], PATIENCE).done:
            continue
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate_sync(items: AsyncIterator[T]) -> Iterator[T]:
    """What an asynchronous iterator gives, as it comes. Leaving the loop early cancels it. Errors as `run_sync`."""
    found: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()

    async def pump() -> None:
        try:
            async for item in items:
                found.put((item,))
        except BaseException as error:
            found.put(error)
            raise
        found.put(None)

    future = _started(pump(), "stream was asked for", "async for chunk in graph.astream(..)")
    try:
        while (told := _next(found)) is not None:
            if isinstance(told, BaseException):
                raise told
            yield told[0]
    finally:
        future.cancel()


def _next(found: queue.SimpleQueue[T]) -> T:
    while True:
        try:
            return found.get(timeout=PATIENCE)
        except queue.Empty:
            continue


def _started(coroutine: Coroutine[Any, Any, T], what: str, hint: str) -> Future[T]:
    """Start a coroutine on the background loop, unless the caller runs there."""
    loop = _background()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise UsageError(
            f"a synchronous {what} by code that already runs on the event loop of synchronous calls.",
            code="SYNC_IN_LOOP",
            hint=hint,
        )
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


def _background() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="jade-loop", daemon=True)
            _thread.start()
        return _loop


def _forget() -> None:
    """In a forked child: the loop's thread was not copied, and the lock may be held by one that was not either."""
    global _lock, _loop, _thread
    # Kept, not collected: closing it would take the parent's sockets out of the epoll that both share.
    _left_behind.append(_loop)
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
