"""JadeGraph: a preset, a backbone and a corpus put together as one runnable graph.

Invariant: everything wrong with the parts is found here, when the graph is built, with the known names listed. A run
always ends: `arun` returns a `Run` with an answer or a named error and raises only for wrong arguments.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langgraph.errors import GraphBubbleUp
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from jade_graph import plugins
from jade_graph.backbones import as_backbone
from jade_graph.errors import GraphError, UsageError, unknown
from jade_graph.langchain.adapting import as_retriever
from jade_graph.langchain.opening import Openable
from jade_graph.langchain.runnable import JadeRunnable
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
from jade_graph.workflow import approval, blackboard
from jade_graph.workflow.actor import Actor, Served
from jade_graph.workflow.context import Event, Recorder, RunContext, as_question, flushed, knows_ids, require_json
from jade_graph.workflow.graph import Workflow, compile_graph
from jade_graph.workflow.many import ManyRuns
from jade_graph.workflow.parts import Parts, limits_of, role_backbones
from jade_graph.workflow.replay import Forkable, Replay
from jade_graph.workflow.supersteps import march, unwatched

_MOST_CONTEXTS = 4096
_MOST_VARIANTS = 32

logger = logging.getLogger("jade_graph")


class JadeGraph(JadeRunnable, ManyRuns, Openable, Forkable):
    """One method (`preset`) over one backbone and one corpus: a LangChain `Runnable`, with `graph` inside.

    Args:
        backbone: serves every trainable role. A `Backbone`, a name for `load_backbone`, or a LangChain chat model.
        backbones: other models for single roles, by code ("PL") or kind ("planner", "executor", "decomposer",
            "summarizer"). Their actions are greedy (a chat model's its own affair) and do not train.
        approve: let a person approve plans before they run: "root" the question's own, "all" those of sub-questions
            too. The graph then interrupts, and needs a checkpointer.
        preset: a `Preset` or the name of one (entry-point group `jade.presets`).
        retriever: where R searches: a `Retriever`, a LangChain retriever, or passages, documents or texts; None is
            right only for plans without R.
        frozen_backbone: serves the roles that the preset does not train, greedily; the backbone itself by default.
        limits: bounds of a run; default: `Limits()` with the preset's own on top.
        sampling: how trainable roles are sampled; default greedy. Its `max_new_tokens` and `seed` are not used: a role
            has its own, and each action's seed is derived from the run's.
        k: passages a retrieval brings.
        action_tokens: upper bound on the tokens of one action, below each role's own.
        constrained: let the planner write nothing but legal plans (constrained decoding).
        recorder: where runs are written as they happen, e.g. a `jade_graph.runs.store.RunStore`.
        checkpointer: a LangGraph checkpointer for `graph`.

    Raises:
        UsageError: an unknown preset, role or plan. GraphError: parts that do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone | Any,
        *,
        preset: str | Preset = "jade",
        retriever: Retriever | Any = None,
        frozen_backbone: Backbone | Any = None,
        backbones: Mapping[str, Backbone | Any] | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        k: int = 5,
        constrained: bool = False,
        action_tokens: int | None = None,
        recorder: Recorder | None = None,
        checkpointer: Any = None,
        approve: approval.Approve | None = None,
    ) -> None:
        self.preset = plugins.load("jade.presets", preset) if isinstance(preset, str) else preset
        self.backbone = as_backbone(backbone)
        self.frozen_backbone = as_backbone(frozen_backbone) if frozen_backbone is not None else self.backbone
        self.retriever = as_retriever(retriever)
        self.recorder = recorder
        self.limits = limits or limits_of(self.preset)
        self.k = k
        if k < 1:
            raise UsageError(f"k is {k}: a retrieval brings at least one passage.", code="BAD_K", hint="k=5")
        parts = Parts(self.preset, self.limits)
        self.roles: Mapping[str, Role] = parts.roles
        self.grammar = parts.grammar
        self.graph_hash = parts.hash(k, constrained, action_tokens)
        self.backbones = role_backbones(backbones or {}, parts)
        self.approve = approval.checked(approve, checkpointer)
        self._contexts: dict[str, RunContext] = {}
        self._variants: dict[str, JadeGraph] = {}
        self.name = self.preset.name
        self._given = {
            **{"retriever": self.retriever, "frozen_backbone": self.frozen_backbone, "backbones": self.backbones},
            **{"k": k, "limits": limits, "sampling": sampling, "constrained": constrained},
            **{"recorder": recorder, "checkpointer": checkpointer, "approve": approve, "preset": self.preset},
            "action_tokens": action_tokens,
        }
        actor = Actor(
            trainable=Served(self.backbone, knows_ids(self.backbone)),
            frozen=Served(self.frozen_backbone, False),
            trainable_roles=self.preset.trainable,
            retriever=self.retriever,
            k=k,
            sampling=sampling or Sampling(temperature=0.0),
            constrained=constrained,
            action_tokens=action_tokens,
            others={role: Served(model, False) for role, model in self.backbones.items()},
        )
        if constrained and parts.planner is not None and not knows_ids(actor.served(parts.planner.code).backbone):
            raise GraphError(
                "constrained plans need a backbone with token ids of its own, and the planner's has none.",
                code="GRAPH_CONSTRAINED",
                hint="constrained=False",
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
            approve=self.approve,
            loop=parts.loop,
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
            "backbones": {role: b for role, b in self.backbones.items() if not isinstance(b, Leasing)},
            "limits": self.limits,
            "k": self.k,
            "constrained": constrained,
            "action_tokens": action_tokens,
        }
        for backbone in (own, frozen, *self.backbones.values()):
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
        plan_seed: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        replay: Replay | None = None,
        config: RunnableConfig | None = None,
    ) -> Run:
        """Answer one question.

        Args:
            plan: force this workflow on the root question instead of asking the planner.
            explore: the probability with which the root's plan is drawn uniformly from the legal ones instead of from
                the planner, 0 to 1. The planner's action is recorded all the same, with the log-probabilities that the
                backbone gives it, and with what a learner needs to weigh it (`sampling["explore"]`, `["n_plans"]`).
            plan_seed: seed of the root's plan alone (None: `seed`). Runs of one question and policy that share it draw
                the same plan and carry it out each in its own way.
            sampling: fields of `Sampling` to override for this run, e.g. `{"temperature": 1.0}`.
            on_event: called on the event loop for every transition and change of the trace.
            replay: recorded actions to carry out again before the models are asked; see `fork`.
            config: LangChain's: callbacks, tags, metadata, configurable. With a checkpointer and no thread_id the
                run's id is the thread's.

        With `approve`, the run comes back with status "running" while a person is asked; `aresume` goes on.

        Raises:
            UsageError: an empty question or an illegal `plan`. Everything later is a failed `Run`, not an exception.
        """
        asked = as_question(question)
        if not asked.question.strip():
            raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint='jade ask "Who wrote Dune?"')
        plan, overrides = self._checked(plan, sampling)
        if not 0.0 <= explore <= 1.0:
            raise UsageError(f"explore is {explore!r}, no probability.", code="BAD_EXPLORE", hint="explore=0.3")
        ctx = await self._waiting(config) or self._open(asked, seed, run_id, attempt, limits, metadata)
        ctx.on_event, ctx.sampling, ctx.root_plan, ctx.replay = on_event, overrides, plan, replay
        ctx.explore, ctx.plan_seed = explore, plan_seed
        state = {"question": asked.question, "question_id": asked.id, "run_id": ctx.run.id, "seed": seed}
        return await self._drive(ctx, state, config)

    async def aresume(
        self, said: Any, config: RunnableConfig, *, on_event: Callable[[Event], None] | None = None
    ) -> Run:
        """Go on with the run that waits on this thread. `said`: the answer to what it asked, or a `Command`.

        Raises `UsageError` NOTHING_WAITS.
        """
        snapshot = await self.graph.aget_state(config)
        if not snapshot.next:
            thread = (config.get("configurable") or {}).get("thread_id")
            raise UsageError(
                f"no run waits on the thread {thread!r}.", code="NOTHING_WAITS", hint="ask a question on it first"
            )
        ctx = self._context(snapshot.values)
        ctx.on_event = on_event
        return await self._drive(ctx, said if isinstance(said, Command) else Command(resume=said), config)

    async def _waiting(self, config: RunnableConfig | None) -> RunContext | None:
        """The run to go on with, where a graph around this one is resumed after an interrupt within it."""
        inherited = ensure_config(config)
        if not inherited["configurable"].get("__pregel_resuming"):
            return None
        snapshot = await self.graph.aget_state(inherited)
        return self._context(snapshot.values) if snapshot.next else None

    async def _drive(self, ctx: RunContext, given: Any, config: RunnableConfig | None) -> Run:
        config = {**(config or {}), "recursion_limit": self._steps(ctx.limits)}
        if self.graph.checkpointer and not ensure_config(config)["configurable"].get("thread_id"):
            config["configurable"] = {**(config.get("configurable") or {}), "thread_id": ctx.run.id}
        try:
            out: Mapping[str, Any] = {}
            if self.graph.checkpointer is None and unwatched(config):
                await march(self._flow, given, config["recursion_limit"])
            else:
                out = await self.graph.ainvoke(given, config)
            if ctx.run.status == "running" and (asked := out.get("__interrupt__")):
                ctx.tell(Event("waiting", ctx.run.id, run=ctx.run, waiting=tuple(i.value for i in asked)))
                return ctx.run
            if ctx.run.status == "running":
                raise RuntimeError("the graph stopped without an end: a node sent the run to a node that is not there")
        except GraphBubbleUp:  # a graph around this one is interrupted: it comes back here when it is resumed
            raise
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
        if plan is not None and self._flow.loop is not None:
            raise UsageError(
                f"the plan {plan!r} cannot be taken: {self.preset.name!r} is a loop and has no plans.",
                code="PLAN_ILLEGAL",
                hint="leave the plan out",
            )
        return None if plan is None else str(self.grammar.require(plan)), overrides

    def variant(self, **changes: Any) -> JadeGraph:
        """A graph like this one with other arguments (preset, k, ..) over the same models; made once for each."""
        changes = {name: value for name, value in changes.items() if self._given.get(name, ...) != value}
        if changes.get("preset") == self.preset.name:
            del changes["preset"]
        if not changes:
            return self
        key = repr(sorted(changes.items()))
        if key not in self._variants:
            while len(self._variants) >= _MOST_VARIANTS:
                self._variants.pop(next(iter(self._variants)))
            self._variants[key] = JadeGraph(self.backbone, **{**self._given, **changes})
        return self._variants[key]

    def __repr__(self) -> str:
        corpus = self.retriever.corpus_id if self.retriever else None
        others = f", backbones={self.versions!r}" if self.backbones else ""
        return (
            f"JadeGraph({self.backbone.version!r}, preset={self.preset.name!r}, corpus={corpus!r}, k={self.k}{others})"
        )

    async def aclose(self) -> None:
        """Close the backbones. The recorder and the retriever belong to the caller."""
        for backbone in {id(b): b for b in (self.backbone, self.frozen_backbone, *self.backbones.values())}.values():
            await backbone.aclose()

    @property
    def versions(self) -> dict[str, str]:
        """What every role of another model runs on, by role. The rest run on `backbone.version`."""
        return {role: backbone.version for role, backbone in sorted(self.backbones.items())}

    def _steps(self, limits: Limits) -> int:
        """More graph steps than a run within its limits can take: a round is its plan, its planner and two selects."""
        longest = max((len(plan.steps) for plan in self.grammar.plans), default=len(self.roles) + len(self._flow.tools))
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
            metadata={
                **{k: v for k, v in (("type", asked.type), ("answers", list(asked.answers))) if v},
                **({"backbones": self.versions} if self.backbones else {}),
                **(metadata or {}),
            },
        )
        if run.id in self._contexts:
            raise UsageError(f"run {run.id!r} is running already.", code="RUN_EXISTS", hint="leave run_id out")
        require_json(run.metadata)
        ctx = RunContext(run, limits or self.limits, self.recorder)
        ctx.hold(self.backbone, self.frozen_backbone, *self.backbones.values(), versions=versions)
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
