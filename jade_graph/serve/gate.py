"""What a connection may do before anybody has read a request: how many there are, how large and how slow.

Invariant: nothing is parsed of headers beyond their bound, and no connection is held by a request that does not come:
headers have bytes and seconds, a body has seconds, connections are bounded in all and for each address. What is refused
is counted and logged, a line a second at most.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jade_graph.serve.guard import BODY_S

logger = logging.getLogger("jade_graph.serve")

HEADER_S = 20.0
"""Seconds from a connection, or from a further request's first byte, to the end of the headers."""
_BODY_S = BODY_S + 15.0  # the guard answers first, where there is somebody to answer
_SPARE = 64  # descriptors kept for the model, the store and the log
_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class Gate:
    """The bounds of one server, and who is within.

    Args:
        connections: most at once; fewer where the process may not open as many.
        per_address: most of one address; 0: half of `connections`.
        header_bytes: of a request line and its headers.
        refused: is told the code of whatever is refused.
    """

    def __init__(
        self,
        *,
        connections: int,
        per_address: int = 0,
        header_bytes: int = 32 * 1024,
        header_s: float = HEADER_S,
        body_s: float = _BODY_S,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.connections = max(min(connections, _descriptors() - _SPARE), 1)
        self.per_address = min(per_address or max(self.connections // 2, 1), self.connections)
        self.header_bytes, self.header_s, self.body_s = header_bytes, header_s, body_s
        self.open: Counter[str] = Counter()
        self._refused = refused
        self._said = float("-inf")
        self._unsaid = 0

    def enter(self, address: str) -> bool:
        """Whether another connection of this address may stay; it then has to `leave`."""
        if self.open.total() >= self.connections or self.open[address] >= self.per_address:
            return False
        self.open[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.open[address] -= 1
        if self.open[address] <= 0:
            del self.open[address]

    def refuse(self, code: str, address: str) -> None:
        """Count it, and say so, but do not fill the log."""
        self._refused(code)
        self._unsaid += 1
        if (now := time.monotonic()) - self._said >= 1:
            logger.warning("refused a connection of %s: %s (%d since the last line)", address, code, self._unsaid)
            self._said, self._unsaid = now, 0

    def protocol(self) -> type[asyncio.Protocol]:
        """uvicorn's protocol, behind this gate: for `uvicorn.Config(http=..)`."""
        return type("Gated", (_Gated,), {"gate": self})


class _Gated(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # uvicorn's choice: httptools where it is there
    gate: Gate

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._address, self._inside, self._shut = "", False, False
        self._clock: asyncio.TimerHandle | None = None
        self._phase = ""  # "headers", "body", or "": no request is coming in
        self._bytes, self._tail = 0, b""
        self._headed = self._complete = False

    # --- the connection -----------------------------------------------------------------------------------------------
    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else "local"
        if not self.gate.enter(self._address):
            self.transport = transport
            self._refuse(503, code="TOO_MANY_CONNECTIONS")
            return
        self._inside = True
        super().connection_made(transport)
        self._await("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        if self._inside:
            self._inside = False
            self.gate.leave(self._address)
            super().connection_lost(exc)

    # --- what comes in ------------------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self._shut:
            return
        if not self._phase:
            self._await("headers")
        if self._phase == "headers":
            before = self._tail + data
            end = _end_of(before)
            self._bytes += len(data) if end is None else end - len(self._tail)
            if self._bytes > self.gate.header_bytes:
                self._refuse(431, code="HEADERS_TOO_LARGE")
                return
            self._tail = before[-3:]
        super().data_received(data)
        if not self._shut and (now := self._coming()) != self._phase:
            self._await(now)

    def _coming(self) -> str:
        """What of a request is still to come, as the parser sees it."""
        if (connection := getattr(self, "conn", None)) is not None:  # h11
            if connection.their_state is _h11().SEND_BODY:
                return "body"
            return "headers" if connection.their_state is _h11().IDLE and connection.trailing_data[0] else ""
        return "" if self._complete else "body" if self._headed else "headers"

    # httptools calls these; of a request that comes in the same packet as another's end, too.
    def on_message_begin(self) -> None:
        self._headed = self._complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # those behind a body, trailers, mean nothing and would pile up
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._headed = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._complete = True
        super().on_message_complete()

    # --- time ---------------------------------------------------------------------------------------------------------
    def _await(self, phase: str) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        self._phase, self._bytes, self._tail = phase, 0, b""
        if phase:
            seconds = self.gate.header_s if phase == "headers" else self.gate.body_s
            self._clock = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._phase == "headers":
            self._refuse(408, code="HEADERS_TIMEOUT")
            return
        self._shut = True  # what could be answered was answered
        self.gate.refuse("BODY_TIMEOUT", self._address)
        self.transport.abort()

    def _refuse(self, status: int, *, code: str) -> None:
        """Say why in a few bytes and hang up; the rest is not read."""
        self._shut = True
        self._await("")
        self.gate.refuse(code, self._address)
        told = {"message": f"{_REASONS[status].lower()}.", "type": "invalid_request_error", "param": None, "code": code}
        body = json.dumps({"error": told}).encode()
        cycle = getattr(self, "cycle", None)
        if not self.transport.is_closing():
            if cycle is None or cycle.response_complete:  # else an answer is on its way: nothing can be put into it
                head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
                head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
                self.transport.write(head.encode() + body)
            self.transport.close()


def _end_of(data: bytes) -> int | None:
    """Where the headers end: behind an empty line, however lines end."""
    ends = [at + len(end) for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n") if (at := data.find(end)) >= 0]
    return min(ends, default=None)


def _descriptors() -> int:
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if 0 < soft < 1 << 30 else 1 << 20
    except (ImportError, OSError, ValueError):
        return 1 << 20


def _h11() -> Any:
    import h11

    return h11


__all__ = ["HEADER_S", "Gate"]
