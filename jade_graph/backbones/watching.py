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
from collections.abc import Callable, Sequence

from jade_graph.types import Watch

logger = logging.getLogger("jade_graph")

_WINDOW = 48  # tokens that are decoded again for each new one
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

    def _say(self, piece: str) -> None:
        if not piece or self._watch is None:
            return
        self._said += piece
        try:
            self._context.run(self._watch, piece)
        except Exception:
            self._watch = None
            logger.exception("a watcher of tokens raised; it will not be called again")


def deliver(drawn: Sequence[Drawn]) -> None:
    """Hand the tokens of one decoding step to those who watch them, one call for each event loop; from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Drawn]] = {}
    for each in drawn:
        by_loop.setdefault(each[0].loop, []).append(each)
    for loop, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            loop.call_soon_threadsafe(_tell, theirs)


def _tell(drawn: Sequence[Drawn]) -> None:
    for watching, place, token in drawn:
        watching.add(place, token)
        watching.tell()
