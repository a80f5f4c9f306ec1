"""What one run carries beside its state: ledger, deadline, seeds, recorder.

Invariant: one `RunContext` per run and attempt. Budgets are reserved here before anything is spent, so parallel
branches cannot overdraw together; the deadline is set once and every wait is bounded by it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from jade_graph.types import Counters, Limits, Run, TraceNode, Transition

logger = logging.getLogger("jade_graph")


class Recorder(Protocol):
    """Where runs are written as they happen. Called from the event loop: must return at once."""

    def run_started(self, run: Run) -> None: ...
    def transition(self, transition: Transition) -> None: ...
    def trace_nodes(self, run_id: str, attempt: int, nodes: Mapping[str, TraceNode]) -> None: ...
    def run_finished(self, run: Run) -> None: ...
    def run_resumed(self, run: Run, before: int) -> None:
        """The run goes on as a new attempt: what the last attempt did before action `before` belongs to it too."""
        ...

    async def flushed(self, run_id: str) -> None:
        """Return when everything of this run so far is durable. Raises `StoreError` when it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run, for whoever watches it live: a transition, changed trace nodes, or the end."""

    kind: str
    run_id: str
    transition: Transition | None = None
    nodes: Mapping[str, TraceNode] = field(default_factory=dict)
    run: Run | None = None


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
    explore: float = 0.0
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.started + self.limits.deadline_s - time.monotonic()

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.started) * 1000

    def seed(self, *parts: object) -> int:
        """A 63-bit seed that depends on the run's seed and on where in the run an action stands, not on when."""
        text = "\x1f".join(map(str, (self.run.seed, self.run.question_id or self.run.question, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

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
            self.fatal, self.fatal_message = code, message

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
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except Exception:
            self.on_event = None
            logger.exception("on_event raised; it will not be called again for run %s", self.run.id)
