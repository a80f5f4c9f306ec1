"""One run as chunks while it unfolds.

Invariant: leaving the stream early cancels the run, and waits until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from langchain_core.runnables.utils import AddableDict

from jade_graph.langchain.outputs import Story, failure_of
from jade_graph.types import Event, Run

Begin = Callable[[Callable[[Event], None]], Coroutine[Any, Any, Run]]
"""Begins a run whose events are told to this watcher."""


async def unfold(begin: Begin, *, raise_on_failure: bool = False) -> AsyncGenerator[AddableDict]:
    """The chunks of a run: first its id, last its answer. Raises what the run does; where asked, what it failed of."""
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    task = asyncio.ensure_future(begin(events.put_nowait))
    task.add_done_callback(lambda _: events.put_nowait(None))
    story = Story()
    try:
        while (event := await events.get()) is not None:
            for chunk in story.told(event):
                yield chunk
        run = await task
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    for chunk in story.ended(run):
        yield chunk
    if raise_on_failure and run.status == "failed":
        raise failure_of(run)
