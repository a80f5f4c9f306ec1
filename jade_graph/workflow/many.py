"""Many calls at once, and no more than so many.

Invariant: at most `most` are under way; leaving early cancels them, and waits until they have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def windowed(calls: Iterable[Callable[[], Coroutine[Any, Any, T]]], most: int) -> AsyncGenerator[T, None]:
    """What the calls return, as they end; at most `most` are under way at once, and none once this is closed."""
    waiting = iter(calls)
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < most and (call := next(waiting, None)) is not None:
                running.add(asyncio.ensure_future(call()))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
