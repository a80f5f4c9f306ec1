"""Waiting for a coroutine from any thread, on an event loop made for the purpose.

Invariant: it neither waits for the loop that other code runs on nor is waited for by it, so it cannot deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run and wait. Inside a running event loop the work is done in a thread, and blocks that loop meanwhile."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, thread_name_prefix="jade-apart") as pool:
        return pool.submit(asyncio.run, coroutine).result()
