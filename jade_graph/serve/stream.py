"""An answer as server-sent events.

Invariant: what can be refused is refused before the stream begins, with its status; after that an error is an event of
OpenAI's shape. The contents since the last "retract" make up the answer. The stream ends with [DONE] unless the client
left, and then the run is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jade_graph.errors import JadeError
from jade_graph.serve import replies
from jade_graph.serve.answers import event
from jade_graph.serve.problems import RequestError, body_of, status_of
from jade_graph.serve.service import Job, Service
from jade_graph.types import Event, Run

T = TypeVar("T")
QUIET_S = 15.0
"""After so long without an event a comment goes out, so that nothing between here and the client hangs up."""


_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold the events back


class EventStream(Response):
    """The response of a streamed chat; `begin` first, which raises what a run can be refused for."""

    def __init__(
        self, service: Service, job: Job, ignored: Sequence[str], *, events: bool, tokens: bool, usage: bool
    ) -> None:
        super().__init__(status_code=200, media_type="text/event-stream", headers=_HEADERS)
        del self.headers["content-length"]
        self._service, self._job, self._ignored, self._usage = service, job, ignored, usage
        self._events, self._tokens = events, tokens
        self._said = ""
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._chunks = replies.Chunks(job.run_id, job.model or service.graphs.default)
        self._task: asyncio.Task[Run] | None = None

    async def begin(self) -> None:
        """Start the run and return when it has a place. Raises what `Service.answer` raises before a run begins."""
        admitted = asyncio.Event()
        watch = self._queue.put_nowait if self._events or self._tokens else None
        answer = self._service.answer(self._job, on_event=watch, tokens=self._tokens, admitted=admitted.set)
        self._task = task = asyncio.create_task(answer)
        task.add_done_callback(lambda _: self._queue.put_nowait(None))
        waiter = asyncio.ensure_future(admitted.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if not admitted.is_set():
                task.result()
        except BaseException:
            await self._stop()
            raise
        finally:
            waiter.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        assert self._task is not None
        gone = asyncio.ensure_future(_gone(receive))
        writing = asyncio.ensure_future(self._write(send))
        try:
            await asyncio.wait({gone, writing}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            for task in (gone, writing):
                task.cancel()
            await asyncio.gather(gone, writing, return_exceptions=True)
            await self._stop()

    async def _write(self, send: Send) -> None:
        async def put(*values: Any, end: bool = False) -> None:
            body = b"".join(map(event, values)) + (b"data: [DONE]\n\n" if end else b"")
            await send({"type": "http.response.body", "body": body, "more_body": not end})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await put(self._chunks.first())
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    happened = await self._queue.get()
            except TimeoutError:
                await send({"type": "http.response.body", "body": b": still at work\n\n", "more_body": True})
                continue
            waiting = [happened]
            while not self._queue.empty():  # what has come meanwhile goes out with it
                waiting.append(self._queue.get_nowait())
            if told := [chunk for each in waiting if each is not None for chunk in self._chunk(each)]:
                await put(*told)
            if waiting[-1] is None:
                break
        assert self._task is not None
        try:
            run = self._job.require_answer(self._task.result())
        except JadeError as error:
            await put(body_of(error, status_of(error)), end=True)
            return
        last = [*self._rest(run), self._chunks.last(run, self._ignored)]
        await put(*last, *([self._chunks.usage(run)] if self._usage else []), end=True)

    def _chunk(self, happened: Event) -> Iterator[dict[str, Any]]:
        """An event of the run as the client gets it, if it does."""
        if happened.kind == "token":
            self._said += happened.text
            yield self._chunks.content(happened.text)
        elif happened.kind == "retract":
            self._said = ""
            yield self._chunks.event(replies.RETRACTED)
        elif self._events and (told := replies.told(happened)) is not None:
            yield self._chunks.event(told)

    def _rest(self, run: Run) -> Iterator[dict[str, Any]]:
        """What is missing of the answer."""
        self._chunks.name(run)
        if not run.answer.startswith(self._said):
            self._said = ""
            yield self._chunks.event(replies.RETRACTED)
        if self._said != run.answer:
            yield self._chunks.content(run.answer[len(self._said) :])

    async def _stop(self) -> None:
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; when the client leaves first, the work is cancelled.

    Raises:
        RequestError: CANCELLED when the client left; what the work raises.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("the client left.", code="CANCELLED")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
