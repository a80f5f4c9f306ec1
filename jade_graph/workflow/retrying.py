"""When a tool is tried again: LangGraph's `RetryPolicy`, on both ways that a run can take.

Invariant: an action leaves one transition however often it was tried: a try that another follows raises, and records
nothing. LangGraph itself waits and tries again; `tried` does so where nobody watches (`supersteps`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from langgraph.types import RetryPolicy

from jade_graph.errors import RetrievalError

T = TypeVar("T")


def passing(error: Exception) -> bool:
    """Whether a search that failed so may succeed in a moment: not one over a corpus that is not there."""
    return isinstance(error, RetrievalError) and error.error_code != "NO_CORPUS"


RETRY = RetryPolicy(initial_interval=0.05, max_attempts=3, jitter=False, retry_on=passing)
"""Of searches, unless the graph is given another: three tries within the run's one deadline."""


def pause(policy: RetryPolicy, attempt: int) -> float:
    """Seconds between this try, the first being 1, and the next; a second more at most where the policy has jitter."""
    return float(min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (attempt - 1)))


def another(policy: RetryPolicy, error: Exception, attempt: int) -> bool:
    """Whether another try follows this one, the first being 1."""
    wanted = policy.retry_on
    if attempt >= policy.max_attempts:
        return False
    if isinstance(wanted, type):
        return isinstance(error, wanted)
    if isinstance(wanted, Sequence):
        return isinstance(error, tuple(wanted))
    return wanted(error)


async def tried(policy: RetryPolicy, call: Callable[[int], Awaitable[T]]) -> T:
    """What the call comes to, tried as LangGraph tries a node; it is given the number of the try."""
    attempt = 1
    while True:
        try:
            return await call(attempt)
        except Exception as error:
            if not another(policy, error, attempt):
                raise
        await asyncio.sleep(pause(policy, attempt) + (random.uniform(0, 1) if policy.jitter else 0.0))
        attempt += 1
