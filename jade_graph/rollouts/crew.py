"""A rollout's runs in several processes, each with a model and an event loop of its own.

Invariant: every process runs its own questions and records them in the rollout's store as it goes, so what is on disk
does not depend on how many there are, and whatever kills them loses no more than a single process would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.rollouts.making import Due, made, require_facts
from jade_graph.rollouts.processes import Processes, Tell
from jade_graph.sync import run_sync
from jade_graph.types import Run, Runner

LISTEN_S = 0.5


@dataclass(frozen=True, slots=True)
class Workers:
    """Several processes for a rollout.

    Attributes:
        count: how many.
        graph: called once in each: a context that holds a graph like the rollout's own, with a recorder to the same
            store. It is pickled, so: a function of a module, a `functools.partial` of one.
    """

    count: int
    graph: Callable[[], AbstractContextManager[Runner]]

    def __post_init__(self) -> None:
        """Raises `UsageError` BAD_WORKERS."""
        if self.count < 1:
            raise UsageError(f"workers is {self.count}.", code="BAD_WORKERS", hint="workers=2")


async def crewed(
    workers: Workers,
    due: Sequence[Due],
    rollout_id: str,
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    concurrency: int,
) -> AsyncGenerator[Run, None]:
    """Every run as it comes, from whichever process; all runs of a question are made by one.

    Raises what the runs of `rollouts.recorded` do; `UsageError` ROLLOUT_CHANGED for a process whose graph is another;
    `ProcessError` for one that was killed.
    """
    shares = _shared(due, workers.count)
    work = [partial(_work, workers.graph, share, rollout_id, facts, options, concurrency) for share in shares]
    with Processes(work, len(work)) as processes:
        came = 0
        while processes.running:
            run = await asyncio.to_thread(processes.told, LISTEN_S)
            if run is not None:
                came += 1
                yield run


def _shared(due: Sequence[Due], count: int) -> list[list[Due]]:
    """Questions dealt out in turn."""
    number = {id_: i for i, id_ in enumerate(dict.fromkeys(each.question.id for each, _ in due))}
    shares: list[list[Due]] = [[] for _ in range(min(count, len(number)))]
    for each in due:
        shares[number[each[0].question.id] % len(shares)].append(each)
    return shares


def _work(
    make: Callable[[], AbstractContextManager[Runner]],
    share: Sequence[Due],
    rollout_id: str,
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    concurrency: int,
    tell: Tell,
) -> None:
    """The runs of one process."""

    async def everything() -> None:
        async for run in made(graph, share, rollout_id, options, concurrency):
            tell(run)

    with make() as graph:
        require_facts(rollout_id, facts, graph)
        run_sync(everything())
