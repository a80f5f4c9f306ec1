"""Back-pressure: so many runs at once, so many requests waiting, and no more.

Invariant: whoever is admitted gets a place in the order of asking; whoever is not is told at once, with how long the
wait would be. Nothing here grows with the number of requests refused.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from jade_graph.serve.problems import RequestError

_MOST_WAIT_S = 60


class Places:
    """`concurrency` places, and a queue of at most `queue` for them."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # a run's time, smoothed

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self, *, within_s: float = math.inf, accepted: Callable[[], None] | None = None) -> None:
        """Wait for a place; whoever took one gives it back with `give`.

        Args:
            within_s: the longest wait.
            accepted: called when there is a place, or one in the queue.

        Raises:
            RequestError: SERVER_BUSY when the queue is full, or `within_s` passed.
        """
        if self.running < self.concurrency:
            self.running += 1
            if accepted is not None:
                accepted()
            return
        self.require_room()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if accepted is not None:
            accepted()
        try:
            async with asyncio.timeout(None if math.isinf(within_s) else max(within_s, 0)):
                await turn  # whoever wakes us has kept the place taken
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.done() and not turn.cancelled():
                self._next()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._overloaded(f"no place came free within the run's deadline of {within_s:.1f} s.") from None
            raise

    def give(self, seconds: float) -> None:
        """Give a place back that was held for so long."""
        self._seconds += 0.1 * (seconds - self._seconds)
        self._next()

    def require_room(self) -> None:
        """Raise `RequestError` SERVER_BUSY where a request that comes now would be refused."""
        if self.running >= self.concurrency and len(self._waiting) >= self.queue:
            raise self._overloaded(
                f"{self.running} runs are under way and {len(self._waiting)} requests wait: no more are taken."
            )

    def wait_s(self) -> int:
        """About how long a new request would wait for a place, whole seconds, at least 1."""
        return min(_MOST_WAIT_S, max(1, math.ceil(self._seconds * (len(self._waiting) + 1) / self.concurrency)))

    def _overloaded(self, message: str) -> RequestError:
        wait = self.wait_s()
        headers = {"retry-after": str(wait)}
        return RequestError(message, code="SERVER_BUSY", hint=f"try again in {wait} s", headers=headers)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
