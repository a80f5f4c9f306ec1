"""Progress of building a corpus, for the commands that may have to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jade_graph.cli.command import Cli

_PHASES = {"embed": "embedding passages", "words": "indexing words", "save": "saving the corpus"}


@contextmanager
def indexing(cli: Cli) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (phase, done, total) that shows a bar from its first call on; nothing where nothing is built."""
    with cli.out.progress("opening the corpus", "passages") as tick:

        def show(phase: str, done: int, total: int) -> None:
            tick(done, total, _PHASES.get(phase, phase))

        yield show
