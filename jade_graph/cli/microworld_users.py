"""What `jade microworld users` reads: exponents from a text, and lists from a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jade_graph.cli.command import Cli
from jade_graph.errors import UsageError
from jade_graph.types import Retriever

if TYPE_CHECKING:
    from jade_graph.microworld import World


def parsed_etas(text: str) -> list[float]:
    """Numbers separated by commas. Raises `UsageError` MICROWORLD_USERS."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(
            f"the exponents {text!r} are no numbers separated by commas.",
            code="MICROWORLD_USERS",
            hint="--etas 2.5,2,1,.8,0",
        ) from error


def searched(cli: Cli, world: World, queries: Sequence[str], corpus: str | None, depth: int) -> dict[str, list[str]]:
    """Ids of the passages that each query finds, best first."""
    from jade_graph.assembly.corpora import open_named
    from jade_graph.microworld.search import WordSearch
    from jade_graph.sync import run_sync

    retriever: Retriever = WordSearch(world.passages) if corpus is None else open_named(cli.settings, corpus)

    async def search() -> dict[str, list[str]]:
        return {query: [p.id for p in await retriever.search(query, depth)] for query in queries}

    return run_sync(search())
