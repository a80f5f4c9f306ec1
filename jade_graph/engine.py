"""JadeGraph: a preset, a backbone and a corpus put together as one runnable graph.

Invariant: everything wrong with the parts is found here, when the graph is built, with the known names listed. A run
always ends: `arun` returns a `Run` with an answer or a named error and raises only for wrong arguments.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from jade_graph import blackboard, plugins
from jade_graph.actor import Actor, Served
from jade_graph.context import Event, Recorder, RunContext, as_question, flushed, require_json
from jade_graph.errors import UsageError, unknown
from jade_graph.graph import Workflow, compile_graph
from jade_graph.parts import Parts, limits_of
from jade_graph.sync import run_sync
from jade_graph.types import (
    Backbone,
    Counters,
    Limits,
    Preset,
    Question,
    Retriever,
    Role,
    Run,
    Sampling,
)
from jade_graph.versions.pool import Leasing

_MOST_CONTEXTS = 4096

logger = logging.getLogger("jade_graph")


class JadeGraph:
    """One method (`preset`) over one backbone and one corpus.

    Args:
        backbone: serves every trainable role.
        preset: a `Preset` or the name of one (entry-point group `jade.presets`).
        retriever: where R searches; None is right only for plans without R.
        frozen_backbone: serves the roles that the preset does not train, greedily; the backbone itself by default.
        limits: bounds of a run; default: `Limits()` with the preset's own on top.
        sampling: how trainable roles are sampled; default greedy. Its `max_new_tokens` and `seed` are not used: a role
            has its own, and each action's seed is derived from the run's.
        k: passages a retrieval brings.
        action_tokens: upper bound on the tokens of one action, below each role's own.
        constrained: let the planner write nothing but legal plans (constrained decoding).
        recorder: where runs are written as they happen, e.g. a `jade_graph.store.RunStore`.
        checkpointer: a LangGraph checkpointer for `graph`.

    Raises:
        UsageError: an unknown preset, role or plan. GraphError: parts that do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        preset: str | Preset = "jade",
        retriever: Retriever | None = None,
        frozen_backbone: Backbone | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        k: int = 5,
        constrained: bool = False,
        action_tokens: int | None = None,
        recorder: Recorder | None = None,
        checkpointer: Any = None,
    ) -> None:
        self.preset = plugins.load("jade.presets", preset) if isinstance(preset, str) else preset
        self.backbone = backbone
        self.frozen_backbone = frozen_backbone or backbone
        self.retriever = retriever
        self.recorder = recorder
        self.limits = limits or limits_of(self.preset)
        self.k = k
        if k < 1:
            raise UsageError(f"k is {k}: a retrieval brings at least one passage.", code="BAD_K", hint="k=5")
        parts = Parts(self.preset, self.limits)
        self.roles: Mapping[str, Role] = parts.roles
        self.grammar = parts.grammar
        self.graph_hash = parts.hash(k, constrained, action_tokens)
        self._contexts: dict[str, RunContext] = {}
        actor = Actor(
            trainable=Served(backbone, True),
            frozen=Served(self.frozen_backbone, False),
            trainable_roles=self.preset.trainable,
            retriever=retriever,
            k=k,
            sampling=sampling or Sampling(temperature=0.0),
            constrained=constrained,
            action_tokens=action_tokens,
        )
        self._flow = Workflow(
            preset=self.preset,
            roles=parts.roles,
            tools=parts.tools,
            planner=parts.planner,
            summarizer=parts.summarizer,
            grammar=parts.grammar,
            plan=parts.plan,
            sub_plan=parts.sub_plan,
            actor=actor,
            context=self._context,
            close=self._close,
        )
        self.graph: CompiledStateGraph[Any, Any, Any, Any] = compile_graph(self._flow, checkpointer)
        self._follow(constrained, action_tokens)

    def _follow(self, constrained: bool, action_tokens: int | None) -> None:
        """Let backbones whose weights may be swapped begin to follow their alias."""
        own, frozen = self.backbone, self.frozen_backbone
        like = {
            "preset": self.preset,
            "retriever": self.retriever,
            "frozen_backbone": None if frozen is own or isinstance(frozen, Leasing) else frozen,
            "limits": self.limits,
            "k": self.k,
            "constrained": constrained,
            "action_tokens": action_tokens,
        }
        for backbone in (own, frozen):
            if isinstance(backbone, Leasing):
                backbone.follow(like)

    # --- running ------------------------------------------------------------------------------------------------------
    async def arun(
        self,
        question: str | Question,
        *,
        seed: int = 0,
        run_id: str | None = None,
        attempt: int = 0,
        limits: Limits | None = None,
        sampling: Mapping[str, Any] | None = None,
        plan: str | None = None,
        explore: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Run:
        """Answer one question.

        Args:
            plan: force this workflow on the root question instead of asking the planner.
            explore: the probability with which the root's plan is drawn uniformly from the legal ones instead of from
                the planner, 0 to 1. The planner's action is recorded all the same, with the log-probabilities that the
                backbone gives it, and with what a learner needs to weigh it (`sampling["explore"]`, `["n_plans"]`).
            sampling: fields of `Sampling` to override for this run, e.g. `{"temperature": 1.0}`.
            on_event: called on the event loop for every transition and change of the trace.

        Raises:
            UsageError: an empty question or an illegal `plan`. Everything later is a failed `Run`, not an exception.
        """
        asked = as_question(question)
        if not asked.question.strip():
            raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint='jade ask "Who wrote Dune?"')
        plan, overrides = self._checked(plan, sampling)
        if not 0.0 <= explore <= 1.0:
            raise UsageError(f"explore is {explore!r}, no probability.", code="BAD_EXPLORE", hint="explore=0.3")
        ctx = self._open(asked, seed, run_id, attempt, limits, metadata)
        ctx.on_event, ctx.sampling, ctx.root_plan, ctx.explore = on_event, overrides, plan, explore
        state = {"question": asked.question, "question_id": asked.id, "run_id": ctx.run.id, "seed": seed}
        try:
            await self.graph.ainvoke(state, {"recursion_limit": self._steps(ctx.limits)})
            if ctx.run.status == "running":
                raise RuntimeError("the graph stopped without an end: a node sent the run to a node that is not there")
        except Exception as error:
            logger.exception("run %s failed", ctx.run.id)
            self._abort(ctx, error)
        except BaseException as error:  # cancelled: recorded, and on its way
            self._abort(ctx, error)
            raise
        await flushed(self.recorder, ctx.run)
        return ctx.run

    def _checked(self, plan: str | None, sampling: Mapping[str, Any] | None) -> tuple[str | None, dict[str, float]]:
        overrides = dict(sampling or {})
        for name in overrides:
            if name not in ("temperature", "top_p"):
                raise unknown("sampling field", name, ("temperature", "top_p"), code="BAD_SAMPLING")
        return None if plan is None else str(self.grammar.require(plan)), overrides

    def run(self, question: str | Question, **options: Any) -> Run:
        """`arun` for code without an event loop (or inside one: it then runs on a thread of its own)."""
        return run_sync(self.arun(question, **options))

    async def arun_many(
        self,
        questions: Iterable[str | Question],
        *,
        concurrency: int = 64,
        seed: int = 0,
        **options: Any,
    ) -> AsyncIterator[Run]:
        """Answer many questions, at most `concurrency` at once; yields runs as they end.

        A question that cannot be asked (it is empty) is a failed run like any other; wrong options raise `UsageError`.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency is {concurrency}.", code="BAD_CONCURRENCY", hint="concurrency=64")
        self._checked(options.get("plan"), options.get("sampling"))
        waiting = iter(questions)
        running: set[asyncio.Task[Run]] = set()
        try:
            while True:
                while len(running) < concurrency and (item := next(waiting, None)) is not None:
                    running.add(asyncio.ensure_future(self._arun_any(item, seed, options)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _arun_any(self, question: str | Question, seed: int, options: Mapping[str, Any]) -> Run:
        try:
            return await self.arun(question, seed=seed, **options)
        except UsageError as error:
            if error.error_code != "EMPTY_QUESTION":
                raise
            asked = as_question(question)
            run = Run(
                uuid.uuid4().hex, asked.question, asked.id, self.preset.name, seed, "failed", error=error.error_code
            )
            run.error_message, run.started_at = str(error), time.time()
            return run

    async def aclose(self) -> None:
        """Close the backbones. The recorder and the retriever belong to the caller."""
        for backbone in {id(b): b for b in (self.backbone, self.frozen_backbone)}.values():
            await backbone.aclose()

    def _steps(self, limits: Limits) -> int:
        """More graph steps than a run within its limits can take: a round is its plan, its planner and two selects."""
        longest = max(len(plan.steps) for plan in self.grammar.plans)
        return 20 + (longest + 4) * (limits.rounds + limits.sub_questions + 2)

    # --- contexts -----------------------------------------------------------------------------------------------------
    def _open(
        self,
        asked: Question,
        seed: int,
        run_id: str | None,
        attempt: int = 0,
        limits: Limits | None = None,
        metadata: Mapping[str, Any] | None = None,
        versions: Sequence[str] = (),
    ) -> RunContext:
        run = Run(
            id=run_id or uuid.uuid4().hex,
            question=asked.question,
            question_id=asked.id,
            preset=self.preset.name,
            seed=seed,
            attempt=attempt,
            graph_hash=self.graph_hash,
            corpus_id=self.retriever.corpus_id if self.retriever else "",
            started_at=time.time(),
            metadata={**({"type": asked.type} if asked.type else {}), **(metadata or {})},
        )
        if run.id in self._contexts:
            raise UsageError(f"run {run.id!r} is running already.", code="RUN_EXISTS", hint="leave run_id out")
        require_json(run.metadata)
        ctx = RunContext(run, limits or self.limits, self.recorder)
        ctx.hold(self.backbone, self.frozen_backbone, versions=versions)
        run.backbone_version = ctx.leased(self.backbone).version
        while len(self._contexts) >= _MOST_CONTEXTS:  # left behind by graphs driven directly and never finished
            self._contexts.pop(next(iter(self._contexts))).let_go()
        self._contexts[run.id] = ctx
        ctx.open()
        return ctx

    def _context(self, state: Mapping[str, Any]) -> RunContext:
        """The context of the run that this state belongs to.

        The graph may be driven without `arun` (as a LangGraph subgraph, or resumed from a checkpoint in another
        process): the context is then made anew from what the state holds, on the version that the run began with.
        Raises `BackboneError` VERSION_GONE where that is not in memory; the checkpoint stays as it is.
        """
        known = self._contexts.get(state.get("run_id") or "")
        if known is not None:
            return known
        text = state.get("question") or state.get("root") or ""
        asked = Question(id=state.get("question_id") or "", question=text)
        counters: Counters = state.get("counters") or Counters()
        seq = int(state.get("seq") or 0)
        attempt = int(state.get("attempt") or 0) + (1 if seq else 0)
        versions = state.get("versions") or ()
        ctx = self._open(asked, state.get("seed") or 0, state.get("run_id") or None, attempt, versions=versions)
        ctx.counters, ctx.next_seq, ctx.next_round = counters, seq, counters.rounds + counters.sub_questions
        ctx.trace.update(state.get("trace") or {})
        if seq and ctx.recorder is not None:
            ctx.recorder.run_resumed(ctx.run, seq)
        return ctx

    def _close(self, ctx: RunContext) -> None:
        ctx.run.trace = tuple(ctx.trace[key] for key in sorted(ctx.trace, key=blackboard.path))
        self._contexts.pop(ctx.run.id, None)
        ctx.close()

    def _abort(self, ctx: RunContext, error: BaseException) -> None:
        """A cancelled run, or a bug: recorded as failed before the exception goes on its way."""
        if ctx.run.status != "running":
            return
        cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        ctx.run.status, ctx.run.error = "failed", "CANCELLED" if cancelled else "INTERNAL"
        ctx.run.error_message = "" if cancelled else f"{type(error).__name__}: {error}"
        self._close(ctx)


__all__ = ["JadeGraph"]
