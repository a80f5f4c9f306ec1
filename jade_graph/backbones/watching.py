"""What an action says so far, told while it is drawn.

Invariant: the pieces that a watcher hears make up a beginning of the action's text, and the whole of it once the action
has ended; none ends within a character, and nothing is said twice, also where a batch is tried again. A watcher is
called on the event loop and in the context that asked, and costs an action that nobody watches nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Sequence

from jade_graph.types import Watch

logger = logging.getLogger("jade_graph")

_WINDOW = 48  # tokens that are decoded again for each new one
_PAUSE_S = 0.0005  # a watched row, between two wakings of an event loop
_HALF = "\ufffd"  # what the bytes of half a character decode to

Drawn = tuple["Watching", int, int]
"""A watched action, the place of a token in it, and the token."""


class Watching:
    """One watched action, for the event loop that is running.

    Args:
        watch: called with each new piece of text. One that raises is not called again.
        decode: of token ids, as the completion's text is made.
    """

    def __init__(self, watch: Watch, decode: Callable[[Sequence[int]], str]) -> None:
        self._watch: Watch | None = watch
        self._decode = decode
        self.loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._ids: list[int] = []
        self._start = 0  # of the window, and how much of its text was told
        self._told = 0
        self._said = ""

    def add(self, place: int, token: int) -> None:
        """Take a token of the action. What is drawn a second time is known already."""
        if self._watch is not None and place == len(self._ids):
            self._ids.append(token)

    def tell(self) -> None:
        """Say what the tokens so far have added."""
        if self._watch is None:
            return
        text = self._decode(self._ids[self._start :]).rstrip(_HALF)
        if len(text) <= self._told:
            return
        self._say(text[self._told :])
        self._told = len(text)
        if len(self._ids) - self._start > 2 * _WINDOW:
            moved = len(self._ids) - _WINDOW
            kept = self._decode(self._ids[moved:])
            # Where the window may begin depends on the tokenizer: only where what follows is spelled as it was.
            if kept and not kept.endswith(_HALF) and text.endswith(kept):
                self._start, self._told = moved, len(kept)

    def end(self, text: str) -> None:
        """The action has ended with this text: say the rest, where it goes on as it began."""
        if text.startswith(self._said):
            self._say(text[len(self._said) :])
        self.leave()

    def leave(self) -> None:
        """Say nothing any more."""
        self._watch = None

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def _say(self, piece: str) -> None:
        if not piece or self._watch is None:
            return
        self._said += piece
        try:
            self._context.run(self._watch, piece)
        except Exception:
            self._watch = None
            logger.exception("a watcher of tokens raised; it will not be called again")


class Outbox:
    """Tokens of a batch on their way to those who watch.

    Event loops are woken for one row as often as it has a token, for many rows less often, so that nobody's decoding
    waits for the telling of it; nothing is late by more than a few hundredths of a second. What is still here when a
    row ends need not be sent: its watcher has the whole text then.
    """

    def __init__(self) -> None:
        self._drawn: list[Drawn] = []
        self._sent = 0.0

    def put(self, drawn: Sequence[Drawn]) -> None:
        """What the watched rows of one decoding step have drawn."""
        self._drawn += drawn
        now = time.perf_counter()
        if now - self._sent >= _PAUSE_S * len(drawn):
            self._sent = now
            deliver(self._drawn)
            self._drawn = []


def deliver(drawn: Sequence[Drawn]) -> None:
    """Hand tokens to those who watch them, one call for each event loop; from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Drawn]] = {}
    for each in drawn:
        by_loop.setdefault(each[0].loop, []).append(each)
    for loop, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            loop.call_soon_threadsafe(_tell, theirs)


def _tell(drawn: Sequence[Drawn]) -> None:
    for watching, place, token in drawn:
        watching.add(place, token)
    for watching in dict.fromkeys(watching for watching, _, _ in drawn):
        watching.tell()
