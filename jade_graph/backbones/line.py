"""HTTP to a model server: one client, retries, from any event loop.

Invariant: a request ends with an answer, a typed error or its caller's cancellation, which also ends its waiting
between tries; the client lives on a loop and thread of its own, so callers' loops may come and go.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from jade_graph.backbones.batcher import closed_error
from jade_graph.errors import BackboneError
from jade_graph.types import Completion

SERVE_HINT = "vllm serve MODEL --logprobs-mode processed_logprobs"
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 30.0


class Line:
    """The HTTP client on an event loop and thread of its own: callers may come from any loop, and loops may end."""

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float, retries: int, backoff_s: float) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._backoff_s = backoff_s
        self._options: dict[str, Any] = {
            "headers": bearer(api_key),
            "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            "limits": httpx.Limits(max_connections=256, max_keepalive_connections=64),
            # A proxy of the environment is not meant for this machine itself.
            "trust_env": not is_loopback(url),
        }
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._client: httpx.AsyncClient

    async def call(self, work: Coroutine[Any, Any, Completion]) -> Completion:
        """Run `work` on the line's loop. Cancelling the caller cancels the work there."""
        with self._lock:
            if self._closed:
                work.close()
                raise closed_error()
            if self._loop is None:
                self._start()
            assert self._loop is not None
            future = asyncio.run_coroutine_threadsafe(self._guard(work), self._loop)
        return await asyncio.wrap_future(future)

    async def post(
        self, path: str, body: Mapping[str, Any], *, begun: Callable[[], Callable[[Any], None]] | None = None
    ) -> Any:
        """The JSON that the server answers. For work running under `call`.

        Args:
            begun: of a request that asks for a stream: called at the beginning of each try, and what it gives with the
                JSON of each event. The answer is then None, unless the server streamed nothing.

        Raises:
            BackboneError: BACKBONE_UNAVAILABLE (after all tries), BACKBONE_REFUSED, CONTEXT_OVERFLOW,
                BACKBONE_BAD_RESPONSE.
        """
        failure = ""
        for attempt in range(self._retries + 1):
            wait: float | None = None
            try:
                if begun is None:
                    response = await self._client.post(self._url + path, json=body)
                else:
                    streamed = await self._streamed(path, body, begun())
                    if streamed is None:
                        return None
                    response = streamed
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return self._json(response)
                if response.status_code not in _RETRIED:
                    raise self._refused(response)
                failure = f"HTTP {response.status_code}: {response.text[:200]}"
                wait = retry_after(response.headers.get("retry-after"))
            if attempt < self._retries:
                # Up to half as long again, so that callers who failed together do not return together.
                backoff = self._backoff_s * 2**attempt * (1 + random.random() / 2)
                await asyncio.sleep(min(backoff if wait is None else wait, _LONGEST_WAIT_S))
        raise BackboneError(
            f"no answer from the server at {self._url!r} in {self._retries + 1} tries; the last: {failure}",
            code="BACKBONE_UNAVAILABLE",
            hint=SERVE_HINT,
        )

    async def _streamed(self, path: str, body: Mapping[str, Any], each: Callable[[Any], None]) -> httpx.Response | None:
        """Hand on the events of a stream, to its end; a response that is none comes back, read."""
        async with self._client.stream("POST", self._url + path, json=body) as response:
            if not response.is_success or "event-stream" not in response.headers.get("content-type", ""):
                await response.aread()
                return response
            rest = b""
            async for part in response.aiter_bytes():  # lines of text would end at U+2028 too
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                    if data == b"[DONE]":
                        return None
                    if data:
                        each(self._event(data))
        raise httpx.RemoteProtocolError("the stream ended before its end")

    def _event(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise BackboneError(
                f"the server at {self._url!r} sent an event that is no JSON: {data[:200]!r}",
                code="BACKBONE_BAD_RESPONSE",
            ) from error

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise BackboneError(
                f"the server at {self._url!r} sent no JSON: {response.text[:200]!r}", code="BACKBONE_BAD_RESPONSE"
            ) from error

    def _refused(self, response: httpx.Response) -> BackboneError:
        text = response.text[:400]
        too_long = response.status_code == 400 and "context length" in text
        return BackboneError(
            f"the server at {self._url!r} refused the request: HTTP {response.status_code}: {text}",
            code="CONTEXT_OVERFLOW" if too_long else "BACKBONE_REFUSED",
            hint="a smaller max_context" if too_long else f"curl {self._url}/models",
        )

    async def _guard(self, work: Coroutine[Any, Any, Completion]) -> Completion:
        try:
            return await work
        except asyncio.CancelledError:
            if self._closed:
                raise closed_error() from None
            raise

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(**self._options)
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="jade-openai", daemon=True)
        self._thread.start()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        if threading.current_thread() is self._thread:  # the last reference was dropped by a request
            loop.create_task(self._shut()).add_done_callback(lambda _: loop.stop())
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    async def _shut(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()


def bearer(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date); None where it does not."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
