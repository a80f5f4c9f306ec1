"""Other people's parsers run beside the event loop, within a time of their own.

Invariant: a parser that is slow holds up its own run alone. Roles that say so (`linear = True`: their time grows with
the text's length alone, and texts are bounded) are read at once, without a thread. A thread cannot be ended: a parser
that runs into its time is left behind, and its run fails. A regular expression that never ends holds the whole
interpreter, in a thread too; `tags` and `regex.search(.., timeout=..)` do not.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PARSE_S = 5.0
"""Seconds that a parser may take."""


class SlowError(Exception):
    """A parser took longer than `PARSE_S`."""


def is_linear(part: object) -> bool:
    """Whether reading with this role takes time that grows with the text's length alone."""
    return getattr(part, "linear", False) is True


async def apart(call: Callable[..., T], *args: Any) -> T:
    """Call it in a thread of its own. Raises `SlowError`, or what it raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(done: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            done(value)

    def work() -> None:
        try:
            done, value = future.set_result, context.run(call, *args)
        except BaseException as error:
            done, value = future.set_exception, error  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, done, value)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name="jade-parser", daemon=True).start()
    try:
        async with asyncio.timeout(PARSE_S) as clock:
            return await future
    except TimeoutError as error:
        if clock.expired():
            raise SlowError(f"reading the action took more than {PARSE_S:g} s") from error
        raise
