"""JadeGraph: a preset, a backbone and a corpus put together as one runnable graph.

Invariant: everything wrong with the parts is found here, when the graph is built, with the known names listed. A run
always ends: `arun` returns a `Run` with an answer or a named error and raises only for wrong arguments.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from jade_graph import blackboard, plugins
from jade_graph.actor import Actor, Served
from jade_graph.context import Event, Recorder, RunContext
from jade_graph.errors import GraphError, UsageError, unknown
from jade_graph.graph import Workflow, compile_graph
from jade_graph.plans import PlanGrammar
from jade_graph.sync import run_sync
from jade_graph.types import (
    SCHEMA_VERSION,
    Backbone,
    Counters,
    Limits,
    Plan,
    Preset,
    Question,
    Retriever,
    Role,
    Run,
    Sampling,
    Tool,
)

PLANNER, SUMMARIZER = "PL", "AS"


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
        self.retriever = retriever
        self.recorder = recorder
        self.limits = limits or limits_of(self.preset)
        self.k = k
        if k < 1:
            raise UsageError(f"k is {k}: a retrieval brings at least one passage.", code="BAD_K", hint="k=5")
        parts = _Parts(self.preset)
        self.roles: Mapping[str, Role] = parts.roles
        self.grammar = parts.grammar
        self.graph_hash = parts.hash(k, constrained, action_tokens)
        self._contexts: dict[str, RunContext] = {}
        actor = Actor(
            trainable=Served(backbone, True),
            frozen=Served(frozen_backbone or backbone, False),
            trainable_roles=self.preset.trainable,
            retriever=retriever,
            k=k,
            sampling=sampling or Sampling(temperature=0.0),
            constrained=constrained,
            graph_hash=self.graph_hash,
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
        metadata: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Run:
        """Answer one question.

        Args:
            plan: force this workflow on the root question instead of asking the planner.
            sampling: fields of `Sampling` to override for this run, e.g. `{"temperature": 1.0}`.
            on_event: called on the event loop for every transition and change of the trace.

        Raises:
            UsageError: an empty question or an illegal `plan`. Everything later is a failed `Run`, not an exception.
        """
        asked = question if isinstance(question, Question) else Question(id="", question=question)
        if not asked.question.strip():
            raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint='jade ask "Who wrote Dune?"')
        if plan is not None:
            plan = str(self.grammar.require(plan))
        ctx = self._open(asked, seed, run_id, attempt, limits, metadata)
        ctx.on_event, ctx.sampling, ctx.root_plan = on_event, dict(sampling or {}), plan
        state = {"question": asked.question, "question_id": asked.id, "run_id": ctx.run.id, "seed": seed}
        try:
            await self.graph.ainvoke(state, {"recursion_limit": _steps(ctx.limits)})
        except BaseException as error:
            self._abort(ctx, error)
            raise
        finally:
            self._contexts.pop(ctx.run.id, None)
            if self.recorder is not None:
                await self.recorder.flushed()
        return ctx.run

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
        """Answer many questions, at most `concurrency` at once; yields runs as they end."""
        waiting = iter(questions)
        running: set[asyncio.Task[Run]] = set()
        try:
            while True:
                while len(running) < concurrency and (item := next(waiting, None)) is not None:
                    running.add(asyncio.ensure_future(self.arun(item, seed=seed, **options)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def aclose(self) -> None:
        await self.backbone.aclose()

    # --- contexts -----------------------------------------------------------------------------------------------------
    def _open(
        self,
        asked: Question,
        seed: int,
        run_id: str | None,
        attempt: int = 0,
        limits: Limits | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunContext:
        run = Run(
            id=run_id or uuid.uuid4().hex,
            question=asked.question,
            question_id=asked.id,
            preset=self.preset.name,
            seed=seed,
            attempt=attempt,
            backbone_version=self.backbone.version,
            graph_hash=self.graph_hash,
            corpus_id=self.retriever.corpus_id if self.retriever else "",
            started_at=time.time(),
            metadata={**({"type": asked.type} if asked.type else {}), **(metadata or {})},
        )
        if run.id in self._contexts:
            raise UsageError(f"run {run.id!r} is running already.", code="RUN_EXISTS", hint="leave run_id out")
        ctx = RunContext(run, limits or self.limits, self.recorder)
        self._contexts[run.id] = ctx
        if self.recorder is not None:
            self.recorder.run_started(run)
        return ctx

    def _context(self, state: Mapping[str, Any]) -> RunContext:
        """The context of the run that this state belongs to.

        The graph may be driven without `arun` (as a LangGraph subgraph, or resumed from a checkpoint in another
        process): the context is then made anew from what the state holds.
        """
        known = self._contexts.get(state.get("run_id") or "")
        if known is not None:
            return known
        text = state.get("question") or state.get("root") or ""
        asked = Question(id=state.get("question_id") or "", question=text)
        ctx = self._open(asked, state.get("seed") or 0, state.get("run_id"))
        ctx.counters = state.get("counters") or Counters()
        ctx.next_seq = ctx.counters.calls + ctx.counters.retrievals
        return ctx

    def _close(self, ctx: RunContext) -> None:
        run, trace = ctx.run, ctx.trace
        run.trace = tuple(trace[key] for key in sorted(trace, key=blackboard.path))
        run.transitions = tuple(sorted(ctx.transitions, key=lambda t: t.seq))
        if run.transitions:
            run.transitions[-1].done = True
        run.counters = ctx.counters
        run.wall_ms = ctx.elapsed_ms()
        self._contexts.pop(run.id, None)
        if self.recorder is not None:
            self.recorder.run_finished(run)
        if ctx.on_event is not None:
            ctx.on_event(Event("end", run.id, run=run))

    def _abort(self, ctx: RunContext, error: BaseException) -> None:
        """A cancelled run, or a bug: recorded as failed before the exception goes on its way."""
        if ctx.run.status != "running":
            return
        cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        ctx.run.status, ctx.run.error = "failed", "CANCELLED" if cancelled else "INTERNAL"
        ctx.run.error_message = "" if cancelled else f"{type(error).__name__}: {error}"
        self._close(ctx)


def limits_of(preset: Preset, **overrides: Any) -> Limits:
    """The default limits with the preset's and then the given ones on top. Raises `UsageError` for an unknown name."""
    wanted = {**preset.limits, **overrides}
    fields = asdict(Limits())
    for name in wanted:
        if name not in fields:
            raise unknown("limit", name, fields, code="UNKNOWN_LIMIT")
    return replace(Limits(), **wanted)


def _steps(limits: Limits) -> int:
    """More graph steps than a run within its limits can take: a round has at most plan + commit + select."""
    return 20 + 10 * (limits.rounds + limits.sub_questions)


class _Parts:
    """The roles, tools and plans of a preset, checked against each other."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        full = PlanGrammar.of(plugins.load("jade.plan_rules", name) for name in preset.plan_rules)
        self.plan = full.require(preset.plan) if preset.plan else None
        self.sub_plan = full.require(preset.sub_plan) if preset.sub_plan else None
        loaded = {code: self._load(code) for code in sorted(full.codes)}
        decomposers = {c for c, p in loaded.items() if getattr(p, "kind", "tool") == "decomposer"}
        splits = limits_of(preset).depth > 0 and bool(
            decomposers & (set(self.plan.steps) if self.plan else set(full.codes))
        )
        planned = self.plan is None or (splits and self.sub_plan is None)
        fixed = tuple(dict.fromkeys(p for p in (self.plan, self.sub_plan) if p is not None))
        self.grammar = full if planned else PlanGrammar(fixed)
        self.planner = self._special(PLANNER, "planner") if planned else None
        self.summarizer = self._special(SUMMARIZER, "summarizer") if splits else None
        used = {code: part for code, part in loaded.items() if code in self.grammar.codes}
        specials = {r.code: r for r in (self.planner, self.summarizer) if r is not None}
        self.tools: dict[str, Tool] = {c: p for c, p in used.items() if not isinstance(p, Role)}
        self.roles: dict[str, Role] = {c: p for c, p in used.items() if isinstance(p, Role)} | specials
        self._check_names()

    def _load(self, code: str) -> Role | Tool:
        part = plugins.load("jade.roles", code)
        if not isinstance(part, Role | Tool):
            raise GraphError(
                f"the entry point {code!r} is a {type(part).__name__}, neither a Role nor a Tool.",
                code="GRAPH_NOT_A_ROLE",
                hint="see jade_graph.types.Role; jade_graph.testing.roles.check_role names what is missing",
            )
        if part.code != code:
            raise GraphError(f"the role {part.code!r} is registered as {code!r}.", code="GRAPH_ROLE_NAME")
        options = self.preset.role_options.get(code)
        if not options:
            return part
        try:
            return replace(part, **options)  # type: ignore[type-var]
        except TypeError as error:
            raise GraphError(
                f"preset {self.preset.name!r}: role {code!r} takes no options {dict(options)!r}: {error}",
                code="GRAPH_ROLE_OPTION",
            ) from error

    def _special(self, code: str, kind: str) -> Role:
        part = self._load(code)
        if not isinstance(part, Role) or part.kind != kind:
            raise GraphError(f"the role {code!r} is no {kind}.", code="GRAPH_ROLE_KIND")
        return part

    def _check_names(self) -> None:
        known = {*plugins.names("jade.roles")}
        named = {*(self.preset.trainable or ()), *self.preset.role_options, *(set(self.preset.penalties) - {"*"})}
        for code in sorted(named - known):
            raise unknown("role", code, known, code="UNKNOWN_ROLE")

    def hash(self, k: int, constrained: bool, action_tokens: int | None) -> str:
        """Names what the graph does: preset, roles with their options, plans, k."""
        described = {
            "schema": SCHEMA_VERSION,
            "preset": {key: repr(value) for key, value in sorted(_fields(self.preset).items())},
            "parts": {code: repr(part) for code, part in sorted({**self.roles, **self.tools}.items())},
            "plans": [str(p) for p in self.grammar.plans],
            "k": k,
            "constrained": constrained,
            "action_tokens": action_tokens,
        }
        text = json.dumps(described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fields(preset: Preset) -> dict[str, Any]:
    fields = asdict(preset)
    fields["trainable"] = sorted(preset.trainable) if preset.trainable is not None else None
    return fields


__all__ = ["JadeGraph", "Plan", "limits_of"]
