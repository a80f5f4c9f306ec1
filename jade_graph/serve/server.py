"""Listening, starting and stopping.

Invariant: what would stop the server from starting is an error before a model is loaded. A first signal stops taking
requests and lets those in flight finish; a second one cancels them, and they are recorded as cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from jade_graph.errors import UsageError
from jade_graph.serve.gate import Gate
from jade_graph.serve.guard import Guard
from jade_graph.serve.keys import Keys
from jade_graph.serve.metrics import Metrics
from jade_graph.settings.addresses import is_loopback
from jade_graph.settings.fields import ServeSettings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 5.0  # after the longest run's deadline
KEEP_ALIVE_S = 65
"""Longer than the 60 s of common load balancers, so that they close idle connections, not we under them."""


def require_safe(settings: ServeSettings, keys: Keys) -> None:
    """Raise `UsageError` SERVE_NO_KEY for an address that others can reach and no key."""
    if not keys and not is_loopback(settings.host):
        raise UsageError(
            f"{settings.host!r} can be reached from other machines, and no API key is set.",
            code="SERVE_NO_KEY",
            hint="--keys-file FILE, or JADE_SERVE__KEYS; or --host 127.0.0.1",
        )


def listen(settings: ServeSettings) -> socket.socket:
    """A bound socket, not yet listening. Raises `UsageError` SERVE_PORT_IN_USE, SERVE_ADDRESS."""
    if settings.port > 65535:
        raise UsageError(f"port {settings.port} is none: they go to 65535.", code="SERVE_ADDRESS", hint="--port 8000")
    try:
        kind, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise _address(settings, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {settings.port} of {settings.host} is in use.",
                code="SERVE_PORT_IN_USE",
                hint=f"--port {settings.port + 1 if settings.port < 65535 else 8000}, or --port 0 for any free one",
            ) from error
        raise _address(settings, error) from error
    return bound


def _address(settings: ServeSettings, error: OSError) -> UsageError:
    return UsageError(
        f"cannot listen on {settings.host!r}, port {settings.port}: {error.strerror or error}.",
        code="SERVE_ADDRESS",
        hint="--host 127.0.0.1 --port 8000",
    )


def url_of(bound: socket.socket) -> str:
    """The address as a client writes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, which ends quietly after a signal instead of raising it again, and says when it is up."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None], stopping: Callable[[bool], None]) -> None:
        super().__init__(config)
        self._told, self._stopping = started, stopping
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._told()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del sig, frame
        again, self.should_exit = self.should_exit, True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop, again)

    def _stop(self, again: bool) -> None:
        self._stopping(again)
        if again:  # who waits for an answer is hung up on, which cancels the run
            for connection in list(self.server_state.connections):
                if (transport := getattr(connection, "transport", None)) is not None:
                    transport.abort()


def configured(app: Guard, gate: Gate, *, deadline_s: float) -> uvicorn.Config:
    """uvicorn behind the gate."""
    return uvicorn.Config(
        app,
        http=gate.protocol(),
        log_config=None,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(deadline_s + _GRACE_S),
        h11_max_incomplete_event_size=gate.header_bytes + (1 << 16),
        backlog=min(gate.connections, 2048),
    )


def gate_of(settings: ServeSettings, metrics: Metrics) -> Gate:
    """The bounds of the settings; what is refused is counted."""
    return Gate(
        connections=settings.connections,
        per_address=settings.per_address,
        header_bytes=settings.max_header_kb * 1024,
        header_s=settings.header_s,
        refused=metrics.refused,
    )


def serve(
    app: Guard,
    bound: socket.socket,
    *,
    deadline_s: float,
    gate: Gate | None = None,
    started: Callable[[], None] = lambda: None,
    stopping: Callable[[bool], None] = lambda _: None,
) -> None:
    """Answer requests until a signal comes.

    Args:
        deadline_s: of the longest run: how long a graceful stop may take.
        gate: how many connections, how large and slow, as `gate_of` has it of settings; None: of the default ones.
        started: called when requests are taken.
        stopping: called on the event loop when a signal comes; True: it is not the first.
    """
    gate = gate or Gate(connections=ServeSettings().connections)
    config = configured(app, gate, deadline_s=deadline_s)
    server = _Server(config, started, stopping)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve([bound]))


__all__ = ["configured", "gate_of", "is_loopback", "listen", "require_safe", "serve", "url_of"]
