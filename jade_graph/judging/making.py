"""Judging many searches: the effects around the cascade.

Invariant: a search is judged once by each judge. What was judged is on disk before it is counted, so that killed at any
time, the same call goes on where it stopped; whoever judged in another way is another judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from jade_graph.judging.cascade import CLUE, Cascade, Judge, Judgement, Label, judge_case, name_of, provenance
from jade_graph.judging.cases import Case
from jade_graph.runs import judgements
from jade_graph.runs.judgements import Judged

AT_ONCE = 8
"""Searches that are judged at the same time, each with all of its voters."""


def known(engine: sa.Engine, cases: Sequence[Case], about: Mapping[str, Any]) -> dict[tuple[str, int, int], Judgement]:
    """What this judge said of these searches before."""
    wanted = {case.key for case in cases}
    with engine.connect() as db:
        rows = judgements.of_runs(db, dict.fromkeys(case.run_id for case in cases), name_of(about))
        found = [_read(each) for each in rows]
    return {each.key: each for each in found if each.key in wanted}


async def judge_cases(
    cases: Sequence[Case],
    judge: Judge,
    cascade: Cascade = CLUE,
    *,
    seed: int = 0,
    engine: sa.Engine | None = None,
    at_once: int = AT_ONCE,
    progress: Callable[[int, int], None] | None = None,
) -> list[Judgement]:
    """Judge searches, or go on with it.

    Args:
        engine: of the run store that keeps what is said; None: nothing is kept, and nothing can be gone on with.
        at_once: searches at the same time.
        progress: called with (done, in all).

    Returns:
        One for each case, in their order.

    Raises:
        What the judge raises; what was judged before stays. StoreError: STORE_WRITE.
    """
    about = provenance(judge, cascade, seed)
    done = known(engine, cases, about) if engine is not None else {}
    left = [case for case in cases if case.key not in done]
    gate = asyncio.Semaphore(max(1, at_once))
    if progress is not None:
        progress(len(done), len(cases))

    async def one(case: Case) -> None:
        async with gate:
            found = await judge_case(case, judge, cascade, seed=seed)
        if engine is not None:
            judgements.keep(engine, _written(found, cascade))  # milliseconds; what was paid for is kept before all else
        done[found.key] = found
        if progress is not None:
            progress(len(done), len(cases))

    tasks = [asyncio.create_task(one(case)) for case in left]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [done[case.key] for case in cases]


def _written(found: Judgement, cascade: Cascade) -> Judged:
    rows = tuple(
        (label.id, None if label.level is None else cascade.value(label.level), label.level, label.votes)
        for label in found.labels
    )
    return Judged(
        found.run_id, found.attempt, found.seq, name_of(found.about), found.query, rows, found.about,
        found.calls, found.unreadable, found.tokens,
    )  # fmt: skip


def _read(row: Judged) -> Judgement:
    labels = tuple(Label(id_, level, votes) for id_, _, level, votes in row.rows)
    return Judgement(
        row.run_id, row.attempt, row.seq, row.query, labels, row.calls, row.unreadable, row.tokens, row.about
    )


__all__ = ["AT_ONCE", "judge_cases", "known"]
