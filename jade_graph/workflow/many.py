"""Runs by the dozen, and runs for code without an event loop: what a graph does with `arun` alone.

Invariant: at most `concurrency` runs are under way at once; leaving early cancels them; a question that cannot be asked
is a failed run like any other.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from jade_graph.errors import UsageError
from jade_graph.sync import run_sync
from jade_graph.types import Preset, Question, Run
from jade_graph.workflow.context import as_question

T = TypeVar("T")


class ManyRuns:
    """`run` and `arun_many` over `arun`."""

    preset: Preset

    if TYPE_CHECKING:

        async def arun(self, *args: Any, **kwargs: Any) -> Run: ...

        def _checked(self, plan: str | None, sampling: Mapping[str, Any] | None) -> Any: ...

    def run(self, question: str | Question, **options: Any) -> Run:
        """`arun` for code without an event loop (or inside one: it then runs on a thread of its own)."""
        return run_sync(self.arun(question, **options))

    async def arun_many(
        self,
        questions: Iterable[str | Question],
        *,
        concurrency: int = 64,
        seed: int = 0,
        **options: Any,
    ) -> AsyncIterator[Run]:
        """Answer many questions, at most `concurrency` at once; yields runs as they end.

        A question that cannot be asked (it is empty) is a failed run like any other; wrong options raise `UsageError`.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency is {concurrency}.", code="BAD_CONCURRENCY", hint="concurrency=64")
        self._checked(options.get("plan"), options.get("sampling"))
        calls = (partial(self._arun_any, item, seed, options) for item in questions)
        async with aclosing(windowed(calls, concurrency)) as runs:
            async for run in runs:
                yield run

    async def _arun_any(self, question: str | Question, seed: int, options: Mapping[str, Any]) -> Run:
        try:
            return await self.arun(question, seed=seed, **options)
        except UsageError as error:
            if error.error_code != "EMPTY_QUESTION":
                raise
            asked = as_question(question)
            run = Run(
                uuid.uuid4().hex, asked.question, asked.id, self.preset.name, seed, "failed", error=error.error_code
            )
            run.error_message, run.started_at = str(error), time.time()
            return run


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
