"""Rollouts: many recorded runs of one policy, `runs_per_question` for each question.

Invariant: a rollout is recorded with one version of the backbone, one graph, one corpus, one seed and one sampling; its
run ids and seeds are pure functions of (rollout, question, replica). Whatever kills the process, going on repeats no
run that ended and loses none: a run that was cut off is run again as its next attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from jade_graph.errors import BackboneError, StoreError, UsageError
from jade_graph.rollouts.crew import Workers, crewed
from jade_graph.rollouts.making import facts_of, made, require_alike
from jade_graph.rollouts.replicas import Planned, planned
from jade_graph.runs import store_read
from jade_graph.runs.store import RunStore
from jade_graph.scoring.metrics import token_f1
from jade_graph.settings.manifest import manifest
from jade_graph.types import Question, Run, Runner


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a rollout has, and what was done now.

    `runs`: done in all; `fresh`: done now, in `seconds`; `failed`: of all; `unscored`: of all, for want of gold
    answers. `f1`: mean token F1 of the scored ones, failed runs scoring what their empty answer does; `calls`: mean
    calls of the model; `plans`: share of the runs by root plan, largest first.
    """

    id: str
    runs: int
    fresh: int
    failed: int
    unscored: int
    seconds: float
    f1: float | None
    calls: float
    plans: Mapping[str, float]

    @property
    def runs_per_s(self) -> float | None:
        """Of the fresh runs; None when there were none."""
        return self.fresh / self.seconds if self.fresh and self.seconds > 0 else None


async def collect(
    graph: Runner,
    questions: Sequence[Question],
    *,
    rollout_id: str,
    runs_per_question: int = 1,
    seed: int = 0,
    concurrency: int = 64,
    sampling: Mapping[str, Any] | None = None,
    explore: float = 0.0,
    runs_per_plan: int = 1,
    progress: Callable[[Run], None] | None = None,
    store: RunStore | None = None,
    workers: Workers | None = None,
    left_out: Sequence[Mapping[str, str]] = (),
    about: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Run a rollout, or go on with it, and return all of its runs with their transitions.

    Args:
        rollout_id: names it; the same id goes on with what is recorded.
        runs_per_question: runs of each question (G), told apart by `metadata["replica"]`, 0 .. G - 1. A rollout can be
            gone on with for more questions or more runs of each.
        sampling: fields of `Sampling` for the trainable roles, on top of temperature 1 and top-p 1.
        explore: handed to `JadeGraph.arun`.
        runs_per_plan: runs that carry out each plan drawn for a question (see `plan_seed` of `JadeGraph.arun`); they
            have the same `metadata["draw"]`. 1: every run draws its own.
        progress: called with each run, those read back too.
        store: where the graph records; default: `graph.recorder`, where that is a `RunStore`. Without one, nothing is
            recorded, and nothing can be gone on with.
        workers: run in several processes, `concurrency` runs at once in each.
        left_out: questions of the data set that cannot be asked, for the record (`Dataset.odd`).
        about: further metadata of every run, such as what it is paid for (`scoring.learned`).

    Returns:
        Runs in the order of the questions and then of the replicas. `metadata` holds "rollout", "replica", "type" and
        "answers" (the gold ones).

    Raises:
        UsageError: ROLLOUT_CHANGED when the rollout began with another backbone version, graph, corpus, seed, sampling,
            limits or wording of a question; ROLLOUT_STORE, ROLLOUT_ID, BAD_REPLICAS, BAD_CONCURRENCY, BAD_SAMPLING.
        BackboneError: ROLLOUT_VERSION when the backbone's version changes while the rollout runs.
        StoreError: STORE_WRITE when a run could not be recorded.
    """
    runs = planned(
        questions,
        rollout_id=rollout_id,
        runs_per_question=runs_per_question,
        seed=seed,
        runs_per_plan=runs_per_plan,
    )
    found: dict[str, Run] = {}
    stream = recorded(
        graph,
        runs,
        rollout_id,
        seed=seed,
        concurrency=concurrency,
        sampling=sampling,
        explore=explore,
        runs_per_plan=runs_per_plan,
        store=store,
        workers=workers,
        left_out=left_out,
        about=about,
    )
    async with aclosing(stream) as all_runs:
        async for run, _ in all_runs:
            found[run.id] = run
            if progress is not None:
                progress(run)
    return [found[each.run_id] for each in runs]


async def tally(
    graph: Runner,
    questions: Sequence[Question],
    *,
    rollout_id: str,
    runs_per_question: int = 1,
    seed: int = 0,
    concurrency: int = 64,
    sampling: Mapping[str, Any] | None = None,
    explore: float = 0.0,
    runs_per_plan: int = 1,
    progress: Callable[[Run], None] | None = None,
    store: RunStore | None = None,
    workers: Workers | None = None,
    left_out: Sequence[Mapping[str, str]] = (),
) -> Rollout:
    """`collect` for a rollout that need not fit into memory: runs go to the store, figures come back."""
    runs = planned(
        questions,
        rollout_id=rollout_id,
        runs_per_question=runs_per_question,
        seed=seed,
        runs_per_plan=runs_per_plan,
    )
    stream = recorded(
        graph,
        runs,
        rollout_id,
        seed=seed,
        concurrency=concurrency,
        sampling=sampling,
        explore=explore,
        runs_per_plan=runs_per_plan,
        store=store,
        workers=workers,
        left_out=left_out,
    )
    scores: list[float] = []
    plans: Counter[str] = Counter()
    fresh = failed = calls = 0
    began: float | None = None
    seconds = 0.0
    async with aclosing(stream) as all_runs:
        async for run, now in all_runs:
            if now:
                began = time.monotonic() - run.wall_ms / 1000 if began is None else began
                seconds = time.monotonic() - began
            fresh += now
            failed += run.status == "failed"
            calls += run.counters.calls
            plans[run.plan or "none"] += 1
            if (score := f1_of(run)) is not None:
                scores.append(score)
            if progress is not None:
                progress(run)
    shares = sorted(plans.items(), key=lambda item: (-item[1], item[0]))
    return Rollout(
        id=rollout_id,
        runs=len(runs),
        fresh=fresh,
        failed=failed,
        unscored=len(runs) - len(scores),
        seconds=seconds,
        f1=sum(scores) / len(scores) if scores else None,
        calls=calls / len(runs),
        plans={plan: n / len(runs) for plan, n in shares},
    )


def f1_of(run: Run) -> float | None:
    """Token F1 of the run's answer against the gold answers in its metadata; None where it has none."""
    golds = run.metadata.get("answers")
    return token_f1(run.answer, golds) if isinstance(golds, list | tuple) else None


async def recorded(
    graph: Runner,
    runs: Sequence[Planned],
    rollout_id: str,
    *,
    seed: int = 0,
    concurrency: int = 64,
    sampling: Mapping[str, Any] | None = None,
    explore: float = 0.0,
    runs_per_plan: int = 1,
    store: RunStore | None = None,
    workers: Workers | None = None,
    left_out: Sequence[Mapping[str, str]] = (),
    about: Mapping[str, Any] | None = None,
) -> AsyncGenerator[tuple[Run, bool], None]:
    """Every run of a rollout as it comes, and whether it was run now: first those read back, then the fresh ones.

    Raises what `collect` does.
    """
    if concurrency < 1:
        raise UsageError(f"concurrency is {concurrency}.", code="BAD_CONCURRENCY", hint="concurrency=64")
    # Whatever a run would refuse is refused before the rollout has begun in the store.
    graph.check(None, sampling)
    if not 0.0 <= explore <= 1.0:
        raise UsageError(f"explore is {explore!r}, no probability.", code="BAD_EXPLORE", hint="explore=0.3")
    facts = facts_of(graph, seed=seed, sampling=sampling, explore=explore, runs_per_plan=runs_per_plan)
    book = _store(graph, store)
    attempts: dict[str, int] = {}
    if book is not None:
        _begin(book, rollout_id, facts, runs, left_out)

        asked = {each.run_id: each for each in runs}
        attempts = store_read.attempts(book.engine, rollout_id)
        begun = [each.run_id for each in runs if each.run_id in attempts]
        for run in book.iter_runs(ids=begun):
            _require_question(rollout_id, asked[run.id], run)
            # A run of other weights that slipped in before ROLLOUT_VERSION was told is run again.
            if _strange_version(run, facts) is None:
                del asked[run.id]
                yield run, False
                await asyncio.sleep(0)  # progress is drawn and an interrupt is heard between blocks
        runs = [each for each in runs if each.run_id in asked]
    options: dict[str, Any] = {"sampling": facts["sampling"], "metadata": dict(about or {})}
    if explore > 0:
        options["explore"] = explore
    due = [(each, attempts[each.run_id] + 1 if each.run_id in attempts else 0) for each in runs]
    if workers is None or workers.count == 1 or not due:
        fresh = made(graph, due, rollout_id, options, concurrency)
    else:
        fresh = crewed(workers, due, rollout_id, facts, options, concurrency)
    async with aclosing(fresh) as ended:
        async for run in ended:
            _require_recorded(rollout_id, run, facts, book)
            yield run, True


def _store(graph: Runner, store: RunStore | None) -> RunStore | None:
    if store is None:
        return graph.recorder if isinstance(graph.recorder, RunStore) else None
    if graph.recorder is not store:
        raise UsageError(
            "the graph does not record to the store of the rollout.",
            code="ROLLOUT_STORE",
            hint="JadeGraph(.., recorder=store)",
        )
    return store


def _begin(
    book: RunStore,
    rollout_id: str,
    facts: Mapping[str, Any],
    runs: Sequence[Planned],
    left_out: Sequence[Mapping[str, str]],
) -> None:
    """Begin the rollout in the store, or check that it goes on as it began."""
    told: dict[str, Any] = {"questions_left_out": list(left_out)} if left_out else {}
    made_with = manifest(**{**facts, **told})
    require_alike(rollout_id, store_read.begin_rollout(book.engine, rollout_id, made_with), facts)
    store_read.add_runs(book.engine, rollout_id, [each.run_id for each in runs])


def _require_question(rollout_id: str, each: Planned, run: Run) -> None:
    asked = each.question.question.encode("utf-8", errors="replace").decode("utf-8")  # as the graph records it
    if run.question != asked:
        raise UsageError(
            f"the rollout {rollout_id!r} cannot go on: its question {run.question_id!r} was {run.question!r} and is "
            f"{asked!r}.",
            code="ROLLOUT_CHANGED",
            hint="a rollout of another id: jade rollout .. --id NAME",
        )


def _require_recorded(rollout_id: str, run: Run, facts: Mapping[str, Any], book: RunStore | None) -> None:
    strange = _strange_version(run, facts)
    if strange is not None:
        raise BackboneError(
            f"the backbone changed from {facts['backbone_version']!r} to {strange!r} within the rollout "
            f"{rollout_id!r} (run {run.id!r}).",
            code="ROLLOUT_VERSION",
            hint="a new rollout for the new weights, or the old weights and the same id",
        )
    if book is not None and run.record_error is not None:
        raise StoreError(
            f"run {run.id!r} of the rollout {rollout_id!r} was not recorded: {run.record_error}",
            code="STORE_WRITE",
            hint="the same command again goes on with the rollout",
        )


def _strange_version(run: Run, facts: Mapping[str, Any]) -> str | None:
    """A version of the weights that acted in the run and is not the rollout's."""
    ours, frozen, others = facts["backbone_version"], facts["frozen_backbone_version"], facts.get("backbones") or {}
    for t in run.transitions:
        known = others.get(t.role) or (ours if t.agent_trainable else frozen)
        if t.backbone_version and t.backbone_version != known:
            return t.backbone_version
    return None if run.backbone_version == ours else run.backbone_version
