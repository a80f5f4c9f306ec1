"""The runs under way, by id.

Invariant: a run has one context from its first node to its last, also where another process goes on with it from a
checkpoint: it is then made anew from what the state holds, on the version that the run began with.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.types import Backbone, Counters, Limits, Question, Recorder, Retriever, Run, path
from jade_graph.workflow.context import RunContext, require_json

_MOST = 4096


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
    ) -> RunContext:
        """Begin a run, or a further attempt at one.

        Args:
            versions: what the run leased before; empty: the active ones.

        Raises:
            UsageError: RUN_EXISTS, BAD_METADATA. BackboneError: VERSION_GONE, BACKBONE_CLOSED.
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
        while len(self.running) >= _MOST:  # left behind by graphs driven directly and never finished
            self.running.pop(next(iter(self.running))).let_go()
        self.running[run.id] = ctx
        ctx.open()
        return ctx

    def of(self, state: Mapping[str, Any]) -> RunContext:
        """The context of the run that this state belongs to.

        Raises `BackboneError` VERSION_GONE where a checkpoint's version is not in memory; the checkpoint stays as it
        is.
        """
        known = self.running.get(state.get("run_id") or "")
        if known is not None:
            return known
        text = state.get("question") or state.get("root") or ""
        asked = Question(id=state.get("question_id") or "", question=text)
        counters: Counters = state.get("counters") or Counters()
        seq = int(state.get("seq") or 0)
        attempt = int(state.get("attempt") or 0) + (1 if seq else 0)
        versions = state.get("versions") or ()
        ctx = self.open(asked, state.get("seed") or 0, state.get("run_id") or None, attempt, versions=versions)
        ctx.counters, ctx.next_seq, ctx.next_round = counters, seq, counters.rounds + counters.sub_questions
        ctx.trace.update(state.get("trace") or {})
        if seq and ctx.recorder is not None:
            ctx.recorder.run_resumed(ctx.run, seq)
        return ctx

    def close(self, ctx: RunContext) -> None:
        """End a run that has its status."""
        ctx.run.trace = tuple(ctx.trace[key] for key in sorted(ctx.trace, key=path))
        self.running.pop(ctx.run.id, None)
        ctx.close()

    def abort(self, ctx: RunContext, error: BaseException) -> None:
        """A cancelled run, or a bug: recorded as failed before the exception goes on its way."""
        if ctx.run.status != "running":
            return
        cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        ctx.run.status, ctx.run.error = "failed", "CANCELLED" if cancelled else "INTERNAL"
        ctx.run.error_message = "" if cancelled else f"{type(error).__name__}: {error}"
        self.close(ctx)


def refused(asked: Question, preset: str, seed: int, error: UsageError) -> Run:
    """The run of a question that cannot be asked: failed, like any other."""
    run = Run(uuid.uuid4().hex, asked.question, asked.id, preset, seed, "failed", error=error.error_code)
    run.error_message, run.started_at = str(error), time.time()
    return run
