"""The engine: a preset, a backbone and a corpus put together as one graph that runs questions.

Invariant: everything wrong with the parts is found here, when they are put together, with the known names listed. A run
always ends: `arun` returns a `Run` with an answer or a named error and raises only for wrong arguments. What it is made
of is handed in: it knows no settings, no store, no registry and no LangChain `Runnable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from langchain_core.runnables.config import RunnableConfig
from langgraph.types import Durability, RetryPolicy

from jade_graph import plugins
from jade_graph.errors import GraphError, UsageError, unknown
from jade_graph.sync import run_sync
from jade_graph.types import (
    Backbone,
    Event,
    Leasing,
    Limits,
    Preset,
    Question,
    Recorder,
    Remembers,
    Retriever,
    Role,
    Run,
    Sampling,
)
from jade_graph.workflow import approval, judging
from jade_graph.workflow.actor import Actor, Served
from jade_graph.workflow.checkpoint import durable
from jade_graph.workflow.context import as_question, knows_ids, require_new
from jade_graph.workflow.contexts import Contexts, refused
from jade_graph.workflow.driving import Driver
from jade_graph.workflow.graph import compile_graph
from jade_graph.workflow.many import windowed
from jade_graph.workflow.native import Announcer
from jade_graph.workflow.nodes import Workflow
from jade_graph.workflow.parts import Parts, limits_of, role_backbones
from jade_graph.workflow.replay import Replay, forked
from jade_graph.workflow.retrying import RETRY
from jade_graph.workflow.writable import require_writable


class Engine:
    """One method (`preset`) over one backbone and one corpus; `graph` is the compiled LangGraph inside.

    Args:
        backbone: serves every trainable role.
        backbones: other models for single roles, by code ("PL") or kind ("planner", "executor", "decomposer",
            "summarizer"). Their actions are greedy (a chat model's its own affair) and do not train.
        approve: let a person approve plans before they run: "root" the question's own, "all" those of sub-questions
            too. The graph then interrupts, and needs a checkpointer.
        preset: a `Preset` or the name of one (entry-point group `jade.presets`).
        retriever: where R searches; None is right only for plans without R.
        frozen_backbone: serves the roles that the preset does not train, greedily; the backbone itself by default.
        limits: bounds of a run; default: `Limits()` with the preset's own on top.
        sampling: how trainable roles are sampled; default greedy. Its `max_new_tokens` and `seed` are not used: a role
            has its own, and each action's seed is derived from the run's.
        k: passages a retrieval brings.
        action_tokens: upper bound on the tokens of one action, below each role's own.
        constrained: let the planner write nothing but legal plans (constrained decoding).
        recorder: where runs are written as they happen.
        checkpointer: a LangGraph checkpointer for `graph`.
        retry_policy: when a search that failed is tried again; default: two more times, within the run's deadline.
        compress: of a graph that trains: judge the long texts of every run, as the preset says whose
            (`workflow.judging.Judging`). None, of all that serve: the graph has no part for it.
        announcer: makes answers and searches events of LangChain's, where its callbacks listen.
        durability: when a run with a checkpointer is written: "async" (LangGraph's default: while the next step goes
            on), "sync" (before it), or "exit" (when the run ends or waits: cheapest, and lost if the process dies).

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
        backbones: Mapping[str, Backbone] | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        k: int = 5,
        constrained: bool = False,
        action_tokens: int | None = None,
        recorder: Recorder | None = None,
        checkpointer: Any = None,
        approve: approval.Approve | None = None,
        retry_policy: RetryPolicy | None = None,
        durability: Durability | None = None,
        compress: str | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        self.preset: Preset = plugins.load("jade.presets", preset) if isinstance(preset, str) else preset
        self.backbone = backbone
        self.frozen_backbone = backbone if frozen_backbone is None else frozen_backbone
        self.retriever = retriever
        self.recorder = recorder
        self.limits = limits or limits_of(self.preset)
        self.k = k
        if k < 1:
            raise UsageError(f"k is {k}: a retrieval brings at least one passage.", code="BAD_K", hint="k=5")
        parts = Parts(self.preset, self.limits)
        self.roles: Mapping[str, Role] = parts.roles
        self.grammar = parts.grammar
        self.compress = judging.checked(compress, self.preset)
        judges = parts.judges(self.compress)
        self.graph_hash = parts.hash(k, constrained, action_tokens, judges, self.compress)
        self.backbones = role_backbones(backbones or {}, parts)
        self.approve = approval.checked(approve, checkpointer)
        self.durability = durable(durability, checkpointer)
        self.contexts = Contexts(
            preset=self.preset.name,
            graph_hash=self.graph_hash,
            retriever=retriever,
            limits=self.limits,
            recorder=recorder,
            backbones=(backbone, self.frozen_backbone, *self.backbones.values()),
            others=self.backbones,
        )
        actor = Actor(
            trainable=Served(backbone, knows_ids(backbone)),
            frozen=Served(self.frozen_backbone, False),
            trainable_roles=self.preset.trainable,
            retriever=retriever,
            k=k,
            sampling=sampling or Sampling(temperature=0.0),
            constrained=constrained,
            action_tokens=action_tokens,
            others={role: Served(model, False) for role, model in self.backbones.items()},
            retry=retry_policy or RETRY,
        )
        if constrained and parts.planner is not None and not knows_ids(actor.served(parts.planner.code).backbone):
            raise GraphError(
                "constrained plans need a backbone with token ids of its own, and the planner's has none.",
                code="GRAPH_CONSTRAINED",
                hint="constrained=False",
            )
        self._writable: set[str] = set()
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
            context=self.contexts.at,
            close=self.contexts.close,
            approve=self.approve,
            loop=parts.loop,
            announcer=announcer,
            judging=judging.Judging.of(self.compress, self.preset, judges, actor) if self.compress else None,
        )
        self.graph = compile_graph(self._flow, self.contexts, checkpointer)
        self._driver = Driver(self.graph, self._flow, self.contexts, recorder, self.durability)
        if constrained:
            self._require_writable()
        self._follow(constrained, action_tokens)

    def _require_writable(self) -> None:
        """What is forced on the planner has to be what it then wrote. Raises `GraphError` GRAPH_PLAN_UNWRITABLE."""
        planner = self._flow.planner
        if planner is None:
            return
        served = self._flow.actor.served(planner.code)
        if knows_ids(served.backbone) and served.backbone.version not in self._writable:
            require_writable(served.backbone, self.grammar.plans)
            self._writable.add(served.backbone.version)

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
        attempt: int | None = None,
        limits: Limits | None = None,
        sampling: Mapping[str, Any] | None = None,
        plan: str | None = None,
        explore: float = 0.0,
        plan_seed: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        tokens: bool = False,
        replay: Replay | None = None,
        config: RunnableConfig | None = None,
    ) -> Run:
        """Answer one question.

        Args:
            run_id: of the run; a fresh one by default.
            attempt: which attempt at the run of this id it is, where the caller counts them.
            plan: force this workflow on the root question instead of asking the planner.
            explore: the probability with which the root's plan is drawn uniformly from the legal ones instead of from
                the planner, 0 to 1. The planner's action is recorded all the same, with the log-probabilities that the
                backbone gives it, and with what a learner needs to weigh it (`sampling["explore"]`, `["n_plans"]`).
            plan_seed: seed of the root's plan alone (None: `seed`). Runs of one question and policy that share it draw
                the same plan and carry it out each in its own way.
            sampling: fields of `Sampling` to override for this run, e.g. `{"temperature": 1.0}`.
            on_event: called on the event loop for every transition and change of the trace.
            tokens: let `on_event` hear the answer too while it is written: see `Event`.
            replay: recorded actions to carry out again before the models are asked; see `fork`.
            config: LangChain's: callbacks, tags, metadata, configurable. With a checkpointer and no thread_id the
                run's id is the thread's.

        With `approve`, the run comes back with status "running" while a person is asked; `aresume` goes on.

        A question on a thread where a plan waits ends the run that waits there, as CANCELLED.

        Raises:
            UsageError: an empty question, an illegal `plan`, a `run_id` that is taken (RUN_EXISTS). Everything later is
                a failed `Run`, not an exception.
        """
        asked = as_question(question)
        if not asked.question.strip():
            raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint='jade ask "Who wrote Dune?"')
        plan, overrides = self.check(plan, sampling)
        if not 0.0 <= explore <= 1.0:
            raise UsageError(f"explore is {explore!r}, no probability.", code="BAD_EXPLORE", hint="explore=0.3")
        if explore:
            self._require_writable()
        shared = self._driver.shares(config)
        begun = partial(self.contexts.open, asked, seed, run_id, attempt or 0, limits, metadata, shared=shared)
        try:
            ctx = await self._driver.waiting(config)
            if ctx is None:
                if run_id is not None and attempt is None and isinstance(self.recorder, Remembers):
                    require_new(run_id, await asyncio.to_thread(self.recorder.ended, run_id))
                await self._driver.left_behind(config)
        except asyncio.CancelledError as error:  # whoever gave it an id finds it under this id
            self.contexts.abort(begun(), error)
            raise
        ctx = ctx or begun()
        invocation = self._driver.taken(ctx)
        ctx.on_event, ctx.tokens, ctx.sampling = on_event, tokens, overrides
        ctx.root_plan, ctx.replay, ctx.explore, ctx.plan_seed = plan, replay, explore, plan_seed
        state = {"question": asked.question, "question_id": asked.id, "run_id": ctx.run.id, "seed": seed}
        return await self._driver.drive(ctx, invocation, state, config)

    async def aresume(
        self,
        said: Any,
        config: RunnableConfig,
        *,
        on_event: Callable[[Event], None] | None = None,
        tokens: bool = False,
    ) -> Run:
        """Go on with the run that waits on this thread.

        Args:
            said: the answer to what it asked (None: yes), or answers by the ids of `interrupts`, or a `Command` with
                one or the other as its `resume`. Where several plans wait, True and False are for all of them.

        Raises:
            UsageError: NOTHING_WAITS, RUN_UNDER_WAY, RESUME_AMBIGUOUS, UNKNOWN_INTERRUPT, BAD_RESUME. The run waits on.
        """
        return await self._driver.resume(said, config, on_event, tokens)

    def run(self, /, question: str | Question, **options: Any) -> Run:
        """`arun` for code without an event loop (or inside one: it then runs on a thread of its own)."""
        return run_sync(self.arun(question, **options))

    async def arun_many(
        self,
        /,
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
        self.check(options.get("plan"), options.get("sampling"))
        calls = (partial(self._arun_any, item, seed, options) for item in questions)
        async with aclosing(windowed(calls, concurrency)) as runs:
            async for run in runs:
                yield run

    async def _arun_any(self, question: str | Question, seed: int, options: Mapping[str, Any]) -> Run:
        try:
            return await self.arun(question, seed=seed, **options)
        except UsageError as error:
            if error.error_code != "EMPTY_QUESTION":
                raise
            return refused(as_question(question), self.preset.name, seed, error)

    async def afork(
        self,
        /,
        run: Run,
        *,
        at: int | str,
        plan: str | None = None,
        query: str | None = None,
        documents: Sequence[int] | None = None,
        answer: str | None = None,
        questions: Sequence[str] | None = None,
        text: str | None = None,
        seed: int | None = None,
        run_id: str | None = None,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Run:
        """Run on from an action of a recorded run, as a new run that names its parent and the edit in its metadata.

        Args:
            at: the action: its `seq`, or "QUESTION:ROLE" as in "0.2:QR" (the first of that role there).
            plan, query, documents, answer, questions: what a planner, a rewriter, a selector (or a search: places of
                documents, from 0), an answerer or a decomposer does instead. One of them, or none: the model is asked
                anew, which with another seed or model is another draw.
            text: instead of these: what the role writes, exactly; it may be illegal.
            seed: of the actions from here on; default: the parent's.
            options: further arguments of `arun`, e.g. `sampling`.

        Raises:
            UsageError: FORK_PRESET, FORK_AT, FORK_EDIT. Later failures end the run, as ever.
        """
        edit = {"plan": plan, "query": query, "documents": documents, "answer": answer, "questions": questions}
        planner = None if self._flow.planner is None else self._flow.planner.code
        fork = forked(run, at, {**edit, "text": text}, preset=self.preset.name, grammar=self.grammar, planner=planner)
        return await self.arun(
            fork.question,
            seed=run.seed if seed is None else seed,
            run_id=run_id,
            plan=fork.plan,
            on_event=on_event,
            metadata={**fork.metadata, **options.pop("metadata", {})},
            replay=fork.replay,
            **options,
        )

    def fork(self, /, run: Run, **options: Any) -> Run:
        """`afork` for code without an event loop."""
        return run_sync(self.afork(run, **options))

    def check(
        self, plan: str | None = None, sampling: Mapping[str, Any] | None = None
    ) -> tuple[str | None, dict[str, float]]:
        """The plan in canonical form and the sampling's overrides. Raises `UsageError` where `arun` would."""
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

    async def aclose(self) -> None:
        """Close the backbones. The recorder and the retriever belong to the caller."""
        for backbone in {id(b): b for b in self.contexts.backbones}.values():
            await backbone.aclose()

    @property
    def versions(self) -> dict[str, str]:
        """What every role of another model runs on, by role. The rest run on `backbone.version`."""
        return self.contexts.versions


__all__ = ["Engine"]
