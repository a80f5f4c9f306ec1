"""The runs under way, by id.

Invariant: a run has one context from its first node to its last, also where another process goes on with it from a
checkpoint: it is then made anew from what the state holds, on the version that the run began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jade_graph.errors import BackboneError, JadeError, StoreError, UsageError, masked
from jade_graph.types import Backbone, Claims, Counters, Limits, Question, Recorder, Retriever, Run, path
from jade_graph.workflow import native
from jade_graph.workflow.context import RunContext, require_json
from jade_graph.workflow.invocation import Invocation, here, thread_of, under_way

_MOST = 4096
_LEFT = "a new question came on its thread while its plan waited for a person."

_lock = threading.Lock()  # engines may share a checkpointer, and threads an engine
_resumed: set[tuple[int, str, str]] = set()


@dataclass(slots=True)
class Contexts:
    """Opens, finds and closes the contexts of one engine's runs.

    Args:
        preset, graph_hash, retriever: what every run is recorded with.
        backbones: those that a run may have to lease, the one of the trainable roles first.
        others: role code to the backbone that serves it alone.
    """

    preset: str
    graph_hash: str
    retriever: Retriever | None
    limits: Limits
    recorder: Recorder | None
    backbones: Sequence[Backbone]
    others: Mapping[str, Backbone]
    running: dict[str, RunContext] = field(default_factory=dict)
    resting: dict[str, RunContext] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str]:
        return {role: backbone.version for role, backbone in sorted(self.others.items())}

    def open(
        self,
        asked: Question,
        seed: int,
        run_id: str | None,
        attempt: int = 0,
        limits: Limits | None = None,
        metadata: Mapping[str, Any] | None = None,
        versions: Sequence[str] = (),
        *,
        shared: bool = False,
        claim: Callable[[], None] | None = None,
    ) -> RunContext:
        """Begin a run, or a further attempt at one.

        Args:
            versions: what the run leased before; empty: the active ones.
            shared: other processes may find the run in a checkpoint.
            claim: see `claim`; taken here where it is not given and the run is shared.

        Raises:
            UsageError: RUN_EXISTS, RUN_UNDER_WAY, BAD_METADATA. BackboneError: VERSION_GONE, BACKBONE_CLOSED.
        """
        run = Run(
            id=run_id or uuid.uuid4().hex,
            question=asked.question,
            question_id=asked.id,
            preset=self.preset,
            seed=seed,
            attempt=attempt,
            graph_hash=self.graph_hash,
            corpus_id=self.retriever.corpus_id if self.retriever else "",
            started_at=time.time(),
            metadata={
                **{k: v for k, v in (("type", asked.type), ("answers", list(asked.answers))) if v},
                **({"backbones": self.versions} if self.others else {}),
                **(metadata or {}),
            },
        )
        if run.id in self.running:
            raise UsageError(f"run {run.id!r} is running already.", code="RUN_EXISTS", hint="leave run_id out")
        require_json(run.metadata)
        ctx = RunContext(run, limits or self.limits, self.recorder)
        ctx.hold(*self.backbones, versions=versions)
        run.backbone_version = ctx.leased(self.backbones[0]).version
        ctx.shared, ctx.claim = shared, claim
        if shared and claim is None:
            try:
                ctx.claim = self.claim(run.id)
            except UsageError:
                ctx.let_go()
                raise
        while len(self.running) >= _MOST and self.resting:  # they can be gone on with from their checkpoints
            self._forget(next(iter(self.resting))).let_go()
        self.running[run.id] = ctx
        ctx.open()
        return ctx

    def claim(self, run_id: str) -> Callable[[], None] | None:
        """Take a run before other processes do, where the recorder can tell. Gives what lets go of it.

        Raises `UsageError` RUN_UNDER_WAY where another process is at work on it.
        """
        if not isinstance(self.recorder, Claims):
            return None
        try:
            taken = self.recorder.claim(run_id)
        except StoreError:  # closed: the run says that it is not recorded
            return None
        if taken is None:
            raise under_way(run_id)
        return taken

    def of(self, state: Mapping[str, Any], claim: Callable[[], None] | None = None) -> RunContext:
        """The context of the run that this state belongs to.

        Raises:
            BackboneError: VERSION_GONE where a checkpoint's version is not in memory. UsageError: RUN_UNDER_WAY. The
                checkpoint stays as it is.
        """
        known = self.running.get(state.get("run_id") or "")
        if known is not None:
            if claim is not None:
                known.claim = claim
            return known
        text = state.get("question") or state.get("root") or ""
        asked = Question(id=state.get("question_id") or "", question=text)
        counters: Counters = state.get("counters") or Counters()
        seq = int(state.get("seq") or 0)
        attempt = int(state.get("attempt") or 0) + (1 if seq else 0)
        versions = state.get("versions") or ()
        seed, run_id = state.get("seed") or 0, state.get("run_id") or None
        ctx = self.open(asked, seed, run_id, attempt, versions=versions, shared=True, claim=claim)
        ctx.counters, ctx.next_seq, ctx.next_round = counters, seq, counters.rounds + counters.sub_questions
        ctx.trace.update(state.get("trace") or {})
        if seq and ctx.recorder is not None:
            ctx.recorder.run_resumed(ctx.run, seq)
        return ctx

    def at(self, state: Mapping[str, Any]) -> RunContext:
        """`of`, for a node that is at work on the run. Raises `UsageError` RUN_UNDER_WAY too."""
        ctx = self.of(state)
        if not ctx.alone:
            invocation, known = here()
            if invocation is not None:
                self.take(ctx, invocation)
                if invocation.custom and ctx.writer is None:
                    ctx.writer = native.writer()
            if ctx.thread is None:
                ctx.thread = thread_of(known)
                self._leave_behind(ctx)
        return ctx

    def take(self, ctx: RunContext, invocation: Invocation) -> None:
        """Let this invocation, and no other, drive the run. Raises `UsageError` RUN_UNDER_WAY."""
        with _lock:
            if ctx.driver is invocation:
                return
            if ctx.driver is not None:
                raise under_way(ctx.run.id)
            if ctx.shared and ctx.claim is None:
                ctx.claim = self.claim(ctx.run.id)
            ctx.driver, ctx.writer, ctx.around = invocation, None, None
            self.resting.pop(ctx.run.id, None)
        invocation.runs.append(ctx)
        ctx.go_on()

    def rest(self, ctx: RunContext) -> None:
        """Nobody drives the run any more; it waits, and its deadline with it."""
        ctx.driver = None
        ctx.leave()
        if ctx.run.id in self.running:
            self.resting[ctx.run.id] = ctx
            if ctx.asking:
                ctx.pause()

    def _leave_behind(self, new: RunContext) -> None:
        """End the runs whose plan waits on the thread of a new one: nobody can answer for them any more."""
        thread, outer = new.thread or ("", "")
        for ctx in [c for c in self.resting.values() if c.asking and c.thread is not None]:
            same = thread and ctx.thread and ctx.thread[0] == thread and bool(ctx.thread[1]) == bool(outer)
            if ctx is not new and same and (not outer or (ctx.thread or ("", ""))[1] != outer):
                self.leave(ctx)

    def waiting(self, state: Mapping[str, Any]) -> RunContext | None:
        """The context of a run whose plan waits, as a checkpoint has it; None where it is over or under way here."""
        known = self.running.get(state.get("run_id") or "")
        if known is not None:
            return known if known.driver is None else None
        try:
            return None if state.get("run_id") in self.ended else self.of(state)
        except BackboneError:  # its version is gone from memory
            return None
        except UsageError as error:  # another process is at work on it
            if error.error_code != "RUN_UNDER_WAY":
                raise
            return None

    def leave(self, ctx: RunContext) -> None:
        """End a run that waits, in favour of another question."""
        self.abort(ctx, asyncio.CancelledError(), _LEFT)

    @contextlib.contextmanager
    def resuming(self, checkpointer: Any, thread: str, place: str) -> Iterator[None]:
        """Hold the thread while its run is gone on with. Raises `UsageError` RUN_UNDER_WAY."""
        key = (id(checkpointer), thread, place)
        with _lock:
            if key in _resumed:
                raise under_way("", thread)
            _resumed.add(key)
        try:
            yield
        finally:
            _resumed.discard(key)

    def _forget(self, run_id: str) -> RunContext:
        self.resting.pop(run_id, None)
        return self.running.pop(run_id)

    def close(self, ctx: RunContext) -> None:
        """End a run that has its status."""
        ctx.run.trace = tuple(ctx.trace[key] for key in sorted(ctx.trace, key=path))
        if ctx.run.id in self.running:
            self._forget(ctx.run.id)
        ctx.driver = None
        self.ended[ctx.run.id] = None
        while len(self.ended) > _MOST:
            self.ended.pop(next(iter(self.ended)))
        ctx.close()
        ctx.leave()

    def abort(self, ctx: RunContext, error: BaseException, why: str = "") -> None:
        """A cancelled run, or a bug: recorded as failed before the exception goes on its way."""
        if ctx.run.status != "running":
            return
        cancelled = isinstance(error, _CANCELS)
        code = error.error_code if isinstance(error, JadeError) else "INTERNAL"
        told = str(error) if isinstance(error, JadeError) else f"{type(error).__name__}: {error}"
        ctx.run.status, ctx.run.error = "failed", "CANCELLED" if cancelled else code
        ctx.run.error_message = why if cancelled else masked(told)
        self.close(ctx)


_CANCELS = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, SystemExit)


def refused(asked: Question, preset: str, seed: int, error: UsageError) -> Run:
    """The run of a question that cannot be asked: failed, like any other."""
    run = Run(uuid.uuid4().hex, asked.question, asked.id, preset, seed, "failed", error=error.error_code)
    run.error_message, run.started_at = str(error), time.time()
    return run
