"""One action of one role: render, generate, parse, record.

Invariant: an action never raises for what a model or a third-party role did; every one leaves exactly one transition
whose ids and log-probabilities are those of the backbone's completion. What ends the run is set on the context.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langgraph.errors import GraphBubbleUp
from langgraph.types import RetryPolicy

from jade_graph.errors import BackboneError, JadeError
from jade_graph.types import (
    Ask,
    Backbone,
    Completion,
    Counters,
    Effect,
    Message,
    Parsed,
    Retriever,
    Role,
    Sampling,
    Tool,
    TraceNode,
    Transition,
    View,
)
from jade_graph.workflow.apart import apart, is_linear
from jade_graph.workflow.context import (
    Begun,
    DeadlineError,
    LimitError,
    RunContext,
    generate,
    in_time,
    knows_ids,
    thought_of,
)
from jade_graph.workflow.plans import workflow
from jade_graph.workflow.reading import checked, fit, jsonable, read
from jade_graph.workflow.replay import Again, Edit, ReplayError
from jade_graph.workflow.retrying import RETRY, another, pause
from jade_graph.workflow.speech import Speech


@dataclass(frozen=True, slots=True)
class Where:
    """Where in the run an action stands; `judges`: the number of the action that it is about, in training alone."""

    target: TraceNode
    round: int
    step: int
    plan: str
    judges: int | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.target.id, self.round, self.step


@dataclass(frozen=True, slots=True)
class Served:
    """A backbone as it serves a role: `trainable` rows are sampled, those of frozen roles are greedy."""

    backbone: Backbone
    trainable: bool


@dataclass(frozen=True, slots=True)
class Actor:
    """Carries out actions for every run of one graph."""

    trainable: Served
    frozen: Served
    trainable_roles: frozenset[str] | None
    retriever: Retriever | None
    k: int
    sampling: Sampling
    constrained: bool
    action_tokens: int | None = None
    others: Mapping[str, Served] = field(default_factory=dict)
    retry: RetryPolicy = RETRY

    def served(self, role: str) -> Served:
        if role in self.others:
            return self.others[role]
        return self.trainable if self.trainable_roles is None or role in self.trainable_roles else self.frozen

    # --- a language-model role ----------------------------------------------------------------------------------------
    async def act(
        self, ctx: RunContext, role: Role, view: View, where: Where, speech: Speech | None = None
    ) -> Effect | None:
        """The effect of the role's action, or None: the action failed and `ctx.fatal` or the transition says why.

        `speech`: hears the answer in it while it is written.
        """
        own = self.served(role.code)
        try:
            backbone = ctx.leased(own.backbone)
        except BackboneError as failure:  # nothing was done yet that could be recorded
            ctx.die(failure.error_code, str(failure))
            return None
        served = Served(backbone, own.trainable)
        seq, began, before = ctx.take_seq(), ctx.elapsed_ms(), ctx.counters
        messages: tuple[Message, ...] = ()
        ids: list[int] = []
        sampling = replace(self.sampling, max_new_tokens=self._room(role, backbone))
        done: Completion | None = None
        parsed = Parsed(None)
        value: Any = None
        effect: Effect | None = None
        error: str | None = None
        explored: dict[str, Any] = {}
        of = {} if where.judges is None else {"judges": where.judges}
        cut = False
        again: Again | Edit | None = None
        try:
            again = ctx.replay.take(where.target.id, role.code) if ctx.replay else None
            if isinstance(again, Again):
                messages, ids, cut = again.messages, list(again.recorded.prompt_token_ids), again.recorded.prompt_cut
                done, explored = again.done, again.drawn
                ctx.spend(calls=1, prompt_tokens=len(ids), action_tokens=len(done.token_ids))
            else:
                messages, ids, cut = fit(role, view, backbone, sampling.max_new_tokens)
                sampling, explored = self._sampling(ctx, role, view, where, served, room=ctx.tokens_left - len(ids))
                hint = Ask(role.code, view, ctx.run.question_id, where.target.id)
                if again is None:
                    tag = getattr(role, "answer_tag", None)
                    hear = speech.hearing(tag, thought_of(backbone), messages) if speech is not None else None
                    done = await generate(ctx, backbone, ids, sampling, hint, hear)
                else:
                    explored = {**explored, "edited": True}
                    done = await written(ctx, backbone, ids, sampling, hint, again.text or "")
            thought = None if _given(sampling, again) else thought_of(backbone)
            if is_linear(role):
                parsed = read(role, done.text, view, thought)
            else:
                parsed = await in_time(ctx, apart(read, role, done.text, view, thought))
            if isinstance(again, Edit) and again.legal and parsed.violation:
                told = f"{done.text!r} is no legal action of {role.code}: {parsed.violation}."
                raise ReplayError(told, code="FORK_EDIT")
            effect = checked(role.effect(parsed.value, view), role, view)
            value = jsonable(parsed.value)
            if isinstance(again, Again):
                again.check(value)
        except DeadlineError:
            error = "LIMIT_DEADLINE"
            doing = "generating" if done is None else "being read"
            ctx.die(error, f"the deadline of {ctx.limits.deadline_s:g} s passed while {role.code} was {doing}.")
        except LimitError as failure:
            error = "LIMIT_TOKENS"
            ctx.die(error, str(failure))
        except (BackboneError, ReplayError) as failure:
            error, effect = failure.error_code, None
            ctx.die(error, str(failure))
        except Exception as failure:  # a third party's role: its error ends this run, not the process
            error, effect = "ROLE_ERROR", None
            ctx.die(error, f"role {role.code!r} raised {type(failure).__name__}: {failure}")
        ctx.record(
            row(
                ctx,
                where,
                role.code,
                began,
                before,
                seq=seq,
                agent_trainable=served.trainable and again is None,
                plan=str(parsed.value) if role.kind == "planner" and effect is not None else where.plan,
                **exchange(backbone, messages, ids, sampling, done, {**explored, **of}),
                prompt_cut=cut,
                parsed=value,
                valid=error is None and parsed.violation is None,
                violation=parsed.violation if isinstance(parsed.violation, str) else None,
                fallback_used=parsed.fallback_used,
                error=error,
            )
        )
        return effect

    def _room(self, role: Role, backbone: Backbone) -> int:
        found = thought_of(backbone)
        return min(role.max_new_tokens, self.action_tokens or role.max_new_tokens) + (found.tokens if found else 0)

    def _sampling(
        self, ctx: RunContext, role: Role, view: View, where: Where, served: Served, *, room: int
    ) -> tuple[Sampling, dict[str, Any]]:
        """How this action is drawn, within the `room` of tokens that the run has left, and what more to record of it.

        Raises `LimitError`.
        """
        wanted = self._room(role, served.backbone)
        choices: tuple[tuple[int, ...], ...] | None = None
        if self.constrained and role.kind == "planner":
            end = served.backbone.eos_token_id
            choices = tuple((*served.backbone.encode_text(workflow(plan)), end) for plan in view.plans)
            wanted = max(wanted, *map(len, choices))
        forced, explored = self._explored(ctx, role, view, where, served)
        wanted = max(wanted, len(forced or ()))
        if room < (1 if choices is None and forced is None else wanted):
            used = ctx.limits.tokens - ctx.tokens_left
            raise LimitError(
                f"no tokens are left for {role.code}: {used} of {ctx.limits.tokens} are used or reserved, "
                f"and its prompt has {ctx.tokens_left - room}."
            )
        sampling = replace(
            self.sampling,
            **ctx.sampling,
            max_new_tokens=min(wanted, room),
            seed=ctx.seed(where.target.id, where.round, where.step, role.code, of_plan=_plans_root(role, where)),
            choices=choices,
            forced=forced,
        )
        sampling = sampling if served.trainable else replace(sampling, temperature=0.0, top_p=1.0)
        return sampling, explored

    def _explored(
        self, ctx: RunContext, role: Role, view: View, where: Where, served: Served
    ) -> tuple[tuple[int, ...] | None, dict[str, Any]]:
        """The root's plan where this run explores (None: the planner draws it), and what the record says of that."""
        if not ctx.explore or not _plans_root(role, where) or not served.trainable:
            return None, {}
        draw = random.Random(ctx.seed("explore", where.target.id, where.round, of_plan=True))
        told = {"explore": ctx.explore, "n_plans": len(view.plans), "forced": draw.random() < ctx.explore}
        if not told["forced"]:
            return None, told
        backbone = served.backbone
        return (*backbone.encode_text(workflow(draw.choice(view.plans))), backbone.eos_token_id), told

    # --- a tool -------------------------------------------------------------------------------------------------------
    async def use(self, ctx: RunContext, tool: Tool, view: View, where: Where, attempt: int = 1) -> Effect | None:
        """The effect of a tool; None: it failed, and ends the run. Beyond the limit a search brings nothing.

        Raises what the tool raised where the retry policy tries it again: nothing is recorded yet.
        """
        begun = ctx.begun.pop(where.place, None)
        searches = bool(getattr(tool, "searches", True))
        effect: Effect | None = None
        error: str | None = None
        drawn: Mapping[str, Any] = {}
        if begun is not None and ctx.fatal:  # the run died while this waited to be tried again
            error = ctx.fatal
        elif begun is None and searches and ctx.counters.retrievals >= ctx.limits.retrievals:
            effect, error = Effect(memory={"documents": ()}), "LIMIT_RETRIEVALS"
            begun = Begun(ctx.take_seq(), ctx.elapsed_ms(), ctx.counters)
        else:
            first = begun is None
            begun = begun or Begun(ctx.take_seq(), ctx.elapsed_ms(), ctx.spend(retrievals=int(searches)))
            try:
                if first and ctx.replay:
                    begun.again = ctx.replay.take(where.target.id, tool.code)
                if begun.again is not None and begun.again.documents is not None:
                    effect, drawn = Effect(memory={"documents": begun.again.documents}), begun.again.drawn
                else:
                    effect = checked(await in_time(ctx, tool.act(view, self.retriever, self.k)), tool, view)
            except DeadlineError:
                error = _late(ctx, tool)
            except GraphBubbleUp:  # a graph within the tool waits for a person
                ctx.begun[where.place] = begun
                raise
            except Exception as failure:  # a third party's retriever: its error ends this run, not the process
                if not isinstance(failure, ReplayError) and another(self.retry, failure, attempt):
                    if pause(self.retry, attempt) < ctx.remaining_s:
                        ctx.begun[where.place] = begun
                        raise
                    error = _late(ctx, tool)
                elif isinstance(failure, JadeError):
                    error = failure.error_code
                    ctx.die(error, str(failure))
                else:
                    error = "TOOL_ERROR"
                    ctx.die(error, f"tool {tool.code!r} raised {type(failure).__name__}: {failure}")
        queries = tuple(view.memory.get("queries") or (view.question,))
        documents = tuple((effect.memory if effect else {}).get("documents") or ())
        ctx.record(
            row(
                ctx,
                where,
                tool.code,
                begun.ms,
                begun.before,
                seq=begun.seq,
                agent_trainable=False,
                plan=where.plan,
                prompt_messages=tuple(Message("user", q) for q in queries),
                prompt_token_ids=(),
                action_text=",".join(d.id for d in documents),
                action_token_ids=(),
                old_logprobs=(),
                sampling=drawn,
                finish_reason="tool" if error is None else "error",
                truncated=False,
                parsed={"queries": list(queries), "documents": jsonable(documents)},
                valid=error is None,
                violation=None,
                fallback_used=False,
                backbone_version="",
                error=error,
            )
        )
        return effect


def _given(sampling: Sampling, again: Again | Edit | None) -> bool:
    """Whether the action's text was chosen for the model, which then had no room for a thought before it."""
    recorded = again.recorded.sampling if isinstance(again, Again) else {}
    told = any(recorded.get(key) for key in ("constrained", "forced", "edited"))
    return told or isinstance(again, Edit) or sampling.choices is not None or sampling.forced is not None


def _late(ctx: RunContext, tool: Tool) -> str:
    ctx.die("LIMIT_DEADLINE", f"the deadline of {ctx.limits.deadline_s:g} s passed while {tool.code} was searching.")
    return "LIMIT_DEADLINE"


async def written(
    ctx: RunContext, backbone: Backbone, ids: list[int], sampling: Sampling, hint: Ask, text: str
) -> Completion:
    """A person's action instead of the model's: with the log-probabilities that the model gives it, where it can."""
    if knows_ids(backbone):
        forced = (*backbone.encode_text(text), backbone.eos_token_id)
        room = max(len(forced), sampling.max_new_tokens)
        try:
            return await generate(
                ctx, backbone, ids, replace(sampling, forced=forced, choices=None, max_new_tokens=room), hint
            )
        except BackboneError as failure:
            if failure.error_code != "BACKBONE_FORCED":  # a server that scores no action which it did not draw
                raise
    return Completion(text, (), (), "stop", backbone.version)


def row(ctx: RunContext, where: Where, code: str, began: float, before: Counters, **action: Any) -> Transition:
    """A transition: what every action has, and what this one adds. `node` is the role's code unless it is given."""
    return Transition(
        run_id=ctx.run.id,
        question_id=ctx.run.question_id,
        attempt=ctx.run.attempt,
        round=where.round,
        step=where.step,
        depth=where.target.depth,
        node=action.pop("node", code),
        trace_node=where.target.id,
        role=code,
        counters_before=before.as_dict(),
        counters_after=ctx.counters.as_dict(),
        started_ms=began,
        latency_ms=ctx.elapsed_ms() - began,
        graph_hash=ctx.run.graph_hash,
        corpus_id=ctx.run.corpus_id,
        **action,
    )


def exchange(
    backbone: Backbone,
    messages: tuple[Message, ...],
    ids: list[int],
    sampling: Sampling,
    done: Completion | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of a transition that say what went into the model and what came out (None: nothing did), exactly.

    `more` is further facts about how the action was drawn. Of a model that tells no ids none are put down, and how it
    samples is its own affair.
    """
    exact = knows_ids(backbone)
    drawn = {
        "temperature": sampling.temperature if exact else None,
        "top_p": sampling.top_p if exact else None,
        "seed": sampling.seed if exact else None,
        "max_new_tokens": sampling.max_new_tokens,
        "constrained": sampling.choices is not None,
    }
    return {
        "prompt_messages": messages,
        "prompt_token_ids": tuple(ids) if exact else (),
        "action_text": done.text if done else "",
        "action_token_ids": done.token_ids if done else (),
        "old_logprobs": done.logprobs if done else (),
        "sampling": {**drawn, **more},
        "finish_reason": done.finish_reason if done else "error",
        "truncated": done is not None and done.finish_reason == "length",
        "queue_ms": done.queue_ms if done else 0.0,
        "backbone_version": done.model_version if done else backbone.version,
    }


def _plans_root(role: Role, where: Where) -> bool:
    return role.kind == "planner" and not where.target.depth
