"""What one run carries beside its state: ledger, deadline, seeds, recorder.

Invariant: one `RunContext` per run and attempt. Budgets are reserved here before anything is spent, so parallel
branches cannot overdraw together; the deadline is set once and every wait is bounded by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from jade_graph.errors import StoreError, UsageError, masked
from jade_graph.types import (
    Ask,
    Backbone,
    Completion,
    Counters,
    Event,
    Lease,
    Leasing,
    Limits,
    Question,
    Recorder,
    Run,
    Sampling,
    Thought,
    TraceNode,
    Transition,
    Watch,
)
from jade_graph.workflow.replay import Again, Edit, Replay
from jade_graph.workflow.speech import Speech

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

logger = logging.getLogger("jade_graph")

T = TypeVar("T")


class LimitError(Exception):
    """The run has no tokens left for an action."""


class DeadlineError(Exception):
    """The run's own deadline passed: told apart from a time-out that a library raises."""


@dataclass(slots=True)
class Begun:
    """A tool's action that was begun and may be tried again: what its one transition says of its beginning."""

    seq: int
    ms: float
    before: Counters
    again: Again | Edit | None = None


@dataclass(slots=True)
class RunContext:
    run: Run
    limits: Limits
    recorder: Recorder | None = None
    on_event: Callable[[Event], None] | None = None
    counters: Counters = field(default_factory=Counters)
    transitions: list[Transition] = field(default_factory=list)
    trace: dict[str, TraceNode] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    fatal: str | None = None
    fatal_message: str = ""
    next_seq: int = 0
    next_round: int = 0
    reserved: int = 0
    root_plan: str | None = None
    paused_at: float | None = None
    explore: float = 0.0
    plan_seed: int | None = None
    replay: Replay | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    begun: dict[tuple[str, int, int], Begun] = field(default_factory=dict)
    alone: bool = False
    driver: object | None = None  # the invocation that is at work on it
    thread: tuple[str, str] | None = None  # see `invocation.thread_of`
    shared: bool = False  # other processes may find it in a checkpoint
    claim: Callable[[], None] | None = None  # lets go of it, for them
    asking: set[str] = field(default_factory=set)  # trace nodes whose plan a person is asked about
    approved: set[tuple[str, int]] = field(default_factory=set)  # those that were answered, with their round
    tokens: bool = False  # `on_event` hears the answer while it is written
    writer: Callable[[Event], None] | None = None  # LangGraph's custom stream
    around: RunnableConfig | None = None  # of the node of another graph that runs it
    speech: Speech = field(init=False)

    def __post_init__(self) -> None:
        self.speech = Speech(self.run.id, self.tell)

    @property
    def heard(self) -> bool:
        """Whether anybody is told the answer while it is written, LangChain's callbacks apart."""
        return self.writer is not None or (self.tokens and self.on_event is not None)

    def hold(self, *backbones: Backbone, versions: Sequence[str] = ()) -> None:
        """Lease those of the backbones whose weights may be swapped: what the run then uses to its end.

        Args:
            versions: what the run leased before, as `self.versions` said; empty: the active ones.

        Raises:
            BackboneError: VERSION_GONE, BACKBONE_CLOSED.
        """
        wanted = list(versions)
        try:
            for backbone in backbones:
                if isinstance(backbone, Leasing) and id(backbone) not in self.leases:
                    version = wanted.pop(0) if wanted else ""
                    self.leases[id(backbone)] = backbone.lease(seconds=self.limits.deadline_s, version=version)
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Give the leased versions back."""
        for lease in self.leases.values():
            lease.release()

    def leave(self) -> None:
        """Let other processes take the run up."""
        claim, self.claim = self.claim, None
        if claim is not None:
            with contextlib.suppress(StoreError):  # closed: its claims are gone
                claim()

    def leased(self, backbone: Backbone) -> Backbone:
        """The version of this backbone that the run holds; the backbone itself where there is only one.

        Raises `BackboneError` VERSION_GONE where a run that waited too long finds its version given up.
        """
        lease = self.leases.get(id(backbone))
        if lease is None:
            return backbone
        lease.renew(max(self.remaining_s, 0.0))
        return lease.backbone

    @property
    def versions(self) -> tuple[str, ...]:
        """The names of the leased versions: what the state keeps, so that a resumed run goes on with the same."""
        return tuple(lease.version for lease in self.leases.values())

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.started + self.limits.deadline_s - time.monotonic()

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.started) * 1000

    def pause(self) -> None:
        """Nobody is at work while a person is asked: the deadline waits, until `go_on` starts it again."""
        if self.paused_at is None:
            self.paused_at = time.monotonic()

    def go_on(self) -> None:
        if self.paused_at is not None:
            self.started += time.monotonic() - self.paused_at
            self.paused_at = None

    def seed(self, *parts: object, of_plan: bool = False) -> int:
        """A 63-bit seed that depends on the run's seed and on where in the run an action stands, not on when.

        `of_plan`: for the root's plan, which runs may share (`plan_seed`).
        """
        base = self.plan_seed if of_plan and self.plan_seed is not None else self.run.seed
        text = "\x1f".join(map(str, (base, self.run.question_id or self.run.question, *parts)))
        return (
            int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1
        )

    def take_seq(self) -> int:
        self.next_seq += 1
        return self.next_seq - 1

    def take_round(self) -> int:
        """Rounds and summaries are numbered in the order in which they start."""
        self.next_round += 1
        return self.next_round

    @property
    def tokens_left(self) -> int:
        """What no branch has spent or reserved."""
        return self.limits.tokens - self.counters.tokens - self.reserved

    def spend(self, **amounts: int) -> Counters:
        """Add to the counters; returns what they were before."""
        before = self.counters
        self.counters = replace(before, **{k: getattr(before, k) + v for k, v in amounts.items()})
        return before

    def die(self, code: str, message: str) -> None:
        """End the run: the first reason stays."""
        if self.fatal is None:
            self.fatal, self.fatal_message = code, masked(message)

    def open(self) -> None:
        """Hand the run to the recorder. A store that fails costs the record, not the run, which says so."""
        if self.recorder is None:
            return
        try:
            self.recorder.run_started(self.run)
        except StoreError as error:
            self.recorder, self.run.record_error = None, str(error)

    def close(self) -> None:
        """Put what was done into the run, which has its status by now, and hand it to the recorder and the watcher."""
        run = self.run
        self.let_go()
        run.transitions = tuple(sorted(self.transitions, key=lambda t: t.seq))
        if run.transitions:
            run.transitions[-1].done = True
        run.counters = self.counters
        run.wall_ms = self.elapsed_ms()
        if self.recorder is not None:
            try:
                self.recorder.run_finished(run)
            except StoreError as error:
                run.record_error = str(error)
        self.tell(Event("end", run.id, run=run))

    def record(self, transition: Transition) -> None:
        self.transitions.append(transition)
        if self.recorder is not None:
            self.recorder.transition(transition)
        self.tell(Event("transition", self.run.id, transition=transition))

    def changed(self, nodes: Mapping[str, TraceNode]) -> None:
        self.trace.update(nodes)
        if self.recorder is not None:
            self.recorder.trace_nodes(self.run.id, self.run.attempt, nodes)
        self.tell(Event("trace", self.run.id, nodes=nodes))

    def tell(self, event: Event) -> None:
        """Show an event to whoever watches. A watcher that raises is dropped: it must not end the run."""
        if self.writer is not None:
            try:
                self.writer(event)
            except Exception:
                self.writer = None
                logger.exception("run %s cannot be streamed any further", self.run.id)
        if self.on_event is None or (event.kind in ("token", "retract") and not self.tokens):
            return
        try:
            self.on_event(event)
        except Exception:
            self.on_event = None
            logger.exception("on_event raised; it will not be called again for run %s", self.run.id)


async def in_time(ctx: RunContext, work: Awaitable[T]) -> T:
    """Await within the run's one deadline. Raises `DeadlineError`, or whatever the work raises."""
    try:
        async with asyncio.timeout(max(ctx.remaining_s, 0)) as clock:
            return await work
    except TimeoutError as error:
        if clock.expired():
            raise DeadlineError from error
        raise


def knows_ids(backbone: Backbone) -> bool:
    """Whether the backbone's token ids are the model's own: only such actions can train."""
    return bool(getattr(backbone, "exact_ids", True))


def counts_draws(backbone: Backbone) -> bool:
    """Whether an answer drawn in several pieces (`Sampling.drawn`) is that of the same seed in one."""
    return bool(getattr(backbone, "counts_draws", False))


def thought_of(backbone: Backbone) -> Thought | None:
    """How the backbone thinks before it answers; None where it does not, or does not say so."""
    found = getattr(backbone, "thought", None)
    return found if isinstance(found, Thought) else None


def streams(backbone: Backbone) -> bool:
    """Whether the backbone tells what it draws while it draws it (`watch`)."""
    return bool(getattr(backbone, "streams", False))


def watched(backbone: Backbone, watch: Watch | None) -> dict[str, Any]:
    """The argument of `generate` that has the backbone heard; none where nobody listens, or it does not stream."""
    return {"watch": watch} if watch is not None and streams(backbone) else {}


async def generate(
    ctx: RunContext,
    backbone: Backbone,
    ids: list[int],
    sampling: Sampling,
    hint: Ask | None = None,
    watch: Watch | None = None,
) -> Completion:
    """One request on the run's account: reserved while it is out, counted when it is done; `watch` hears it.

    Raises `DeadlineError`, or what the backbone raises.
    """
    ctx.spend(calls=1, prompt_tokens=len(ids))
    ctx.reserved += sampling.max_new_tokens
    try:
        done = await in_time(ctx, backbone.generate(ids, sampling, hint=hint, **watched(backbone, watch)))
    finally:
        ctx.reserved -= sampling.max_new_tokens
    read = len(ids) if done.prompt_tokens is None else done.prompt_tokens
    action = len(done.token_ids) if done.action_tokens is None else done.action_tokens
    ctx.spend(prompt_tokens=read - len(ids), action_tokens=action)
    return done


async def flushed(recorder: Recorder | None, run: Run) -> None:
    """Wait until the run is durable. A store that fails costs the record, not the answer: the run says so."""
    if recorder is None:
        return
    try:
        await recorder.flushed(run.id)
    except StoreError as error:
        logger.error("run %s is answered and not recorded: %s", run.id, error)
        run.record_error = str(error)


def as_question(question: str | Question) -> Question:
    """The question as UTF-8 can hold it: a lone surrogate, legal in JSON, becomes "?"."""
    asked = question if isinstance(question, Question) else Question(id="", question=question)
    return replace(asked, question=asked.question.encode("utf-8", errors="replace").decode("utf-8"))


def require_new(run_id: str, ended: int | None, attempt: int = 0) -> None:
    """Raises `UsageError` RUN_EXISTS where a run of this id has ended as this attempt, or a later one."""
    if ended is not None and ended >= attempt:
        raise UsageError(
            f"there is a run {run_id!r} already: its record stays as it is.",
            code="RUN_EXISTS",
            hint=f"leave run_id out; jade runs show {run_id}",
        )


def require_json(metadata: Mapping[str, Any]) -> None:
    """Raises `UsageError` BAD_METADATA for what cannot be written as JSON."""
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the metadata cannot be written as JSON: {error}.", code="BAD_METADATA") from error
