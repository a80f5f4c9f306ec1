"""What every request passes before and after its route: host, key, rate, size of the body; status, time, request id.

Invariant: nothing of a request is read before its key is right, and never more of a body than is allowed is kept. Every
answer goes out in one shape with a request id; an exception becomes an answer, or ends the connection where one began.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jade_graph.errors import JadeError
from jade_graph.serve.answers import Json
from jade_graph.serve.keys import Keys, Rate
from jade_graph.serve.metrics import Metrics
from jade_graph.serve.problems import RequestError, body_of, headers_of, status_of
from jade_graph.settings.addresses import calls_loopback

logger = logging.getLogger("jade_graph.serve")

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""Paths that ask for no key: they say nothing that is not in the documentation or in a load balancer's log."""
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
BODY_S = 30.0
"""Seconds in which a body must have come."""
_DRAIN_BYTES, _DRAIN_S = 64 << 20, 5.0


class Guard:
    """An ASGI app around another one.

    Args:
        local: the server listens on loopback and asks for no key: only requests to a loopback name are answered, so
            that no page in a browser can reach it under a name of its own.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Keys, rate: Rate, max_body: int, metrics: Metrics, local: bool = False
    ) -> None:
        self.app = app
        self._keys, self._rate, self._max_body, self._metrics, self._local = keys, rate, max_body, metrics, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = _headers(scope)
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        more: dict[str, str] = {"x-request-id": request_id}
        status = 0
        body = _Body(receive, self._max_body)
        inner = scope

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                pairs = [(k.encode(), v.encode()) for k, v in more.items()]
                message = {**message, "headers": [*message.get("headers", ()), *pairs]}
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            client = self._admit(scope, headers, more)
            scope.setdefault("state", {}).update(client=client, request_id=request_id)
            if scope["method"] == "POST":
                await body.read(headers.get(b"content-length"))
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self.app(inner, body.receive, answer)
        except Exception as error:
            if not isinstance(error, JadeError):
                logger.exception("request %s %s failed", scope["method"], request_id)
            if status:  # the answer has begun: all that is left is to cut it off
                raise
            if isinstance(error, RequestError) and error.error_code in ("BODY_TOO_LARGE", "BODY_TIMEOUT"):
                more["connection"] = "close"
                if headers.get(b"expect", b"").lower() != b"100-continue":
                    await body.drain()
            await problem(error, self._metrics)(scope, receive, answer)
        finally:
            route = getattr(inner.get("route"), "path", "other")
            seconds = time.perf_counter() - began
            self._metrics.request(route, _method(scope), status or 499, seconds)
            # What a load balancer and Prometheus ask all day is not worth a line, unless it fails.
            level = logging.DEBUG if scope["path"] in _PROBES and status < 400 else logging.INFO
            if logger.isEnabledFor(level):
                logged = _logged(scope, status or 499, seconds, request_id)
                args = (logged["method"], logged["path"], logged["status"], logged["ms"], logged["client"], request_id)
                logger.log(
                    level, "%s %r %d %.1f ms %s %s run %s", *args, logged["run"] or "-", extra={"fields": logged}
                )

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes], more: dict[str, str]) -> str:
        """Whose request this is. Raises `RequestError` FOREIGN_HOST, NO_API_KEY, WRONG_API_KEY, RATE_LIMIT."""
        if self._local:
            hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
            host = ", ".join(hosts)  # two are none: who is meant would depend on who reads
            if not calls_loopback(host):
                raise RequestError(
                    f"the request is to {host[:100]!r}, and this server answers on loopback only.",
                    code="FOREIGN_HOST",
                    hint="http://127.0.0.1, or start the server with an API key",
                )
        if scope["path"] in OPEN:
            return "-"
        client = self._keys.name(headers.get(b"authorization", b"").decode("latin-1") or None)
        if scope["path"].startswith("/v1/"):
            more.update(self._rate.take(client))
        return client


def _logged(scope: Scope, status: int, seconds: float, request_id: str) -> dict[str, Any]:
    """What a request's line says: nothing of what was asked. `run`: the run that answers it, by its id."""
    state = scope.get("state", {})
    return {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "client": state.get("client", "-"),
        "request": request_id,
        "run": state.get("run_id"),
    }


def problem(error: BaseException, metrics: Metrics | None = None) -> Json:
    """An error as an answer."""
    status = status_of(error)
    body = body_of(error, status)
    if metrics is not None and status in (401, 413, 429):
        metrics.refused(body["error"]["code"])
    return Json(body, status, headers_of(error, status))


class _Body:
    """The body of a request: read once within its bounds, then handed on."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._seen = 0
        self._whole = False
        self._data: bytes | None = None

    async def receive(self) -> Message:
        """What the app gets: the body that was read, then whatever comes."""
        if self._data is not None:
            data, self._data = self._data, None
            return {"type": "http.request", "body": data, "more_body": False}
        return await self._receive()

    async def read(self, declared: bytes | None) -> None:
        """Raises `RequestError` BODY_TOO_LARGE, BODY_TIMEOUT, CANCELLED (the client left)."""
        if declared is not None and declared.isdigit() and int(declared) > self._most:
            raise self._too_large()
        parts = []
        try:
            async with asyncio.timeout(BODY_S):
                while not self._whole:
                    parts.append(await self._part())
                    if self._seen > self._most:
                        raise self._too_large()
        except TimeoutError:
            raise RequestError(f"the body did not come within {BODY_S:g} s.", code="BODY_TIMEOUT") from None
        self._data = b"".join(parts)

    async def drain(self) -> None:
        """Read and forget what is left, within bounds: a client that is still writing cannot read our answer."""
        with contextlib.suppress(TimeoutError, RequestError):
            async with asyncio.timeout(_DRAIN_S):
                while not self._whole and self._seen < _DRAIN_BYTES:
                    await self._part()

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise RequestError("the client left.", code="CANCELLED")
        part: bytes = message.get("body", b"")
        self._seen += len(part)
        self._whole = not message.get("more_body", False)
        return part

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body is larger than {self._most} bytes.", code="BODY_TOO_LARGE", hint="serve.max_body_kb raises it"
        )


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _method(scope: Scope) -> str:
    method: Any = scope["method"]
    return str(method) if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
