"""One action of a graph that is not ours: encode, generate or call, parse, record.

Invariant: each request leaves exactly one transition, whose ids and log-probabilities are those of the backbone's
completion; nothing is added to a run that has ended. What goes wrong is recorded by its code and raised.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from jade_graph.errors import JadeError, UsageError
from jade_graph.types import (
    Ask,
    Backbone,
    Completion,
    Counters,
    Message,
    Parsed,
    Passage,
    Sampling,
    TraceNode,
    View,
)
from jade_graph.workflow.actor import Served, Where, exchange, row
from jade_graph.workflow.context import DeadlineError, RunContext, generate, in_time
from jade_graph.workflow.reading import jsonable

T = TypeVar("T")

ROLE_LENGTH = 40
"""Most characters of a role's name: what a column of the run store holds."""

_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    **{"system": "system", "user": "user", "assistant": "assistant"},
    **{"human": "user", "ai": "assistant"},
}


@dataclass(frozen=True, slots=True)
class Action:
    """What `act` gives back: the parsed `value`, the `text` as the model wrote it, and the backbone's `completion`.

    `violation` is the parser's code for an illegal action, None for a legal one; `seq` is the transition's number.
    """

    value: Any
    text: str
    violation: str | None
    completion: Completion
    seq: int


@dataclass(slots=True)
class ForeignActor:
    """Carries out the actions of one run. `roles`: those that train (None: all); `root`: the run's one trace node."""

    ctx: RunContext
    root: TraceNode
    trainable: Served
    frozen: Served
    roles: frozenset[str] | None
    sampling: Sampling
    open: bool = False
    alike: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    steps: Counter[int] = field(default_factory=Counter)

    def require_open(self) -> None:
        """Raises `UsageError` RECORDING_OVER."""
        if not self.open:
            raise UsageError(
                f"run {self.ctx.run.id!r} is not being recorded any more.",
                code="RECORDING_OVER",
                hint="await every action inside its record_run",
            )

    async def act(
        self,
        role: str,
        prompt: str | Sequence[Any],
        parse: Callable[[str], Any] | None,
        chosen: Mapping[str, Any],
        turn: int,
    ) -> Action:
        """One request to the model: see `recording.act`; `chosen` are fields of `Sampling`."""
        served = self.trainable if self.roles is None or role in self.roles else self.frozen
        ctx = self.ctx
        self._check(role)
        backbone = ctx.leased(served.backbone)
        messages, ids = _encoded(prompt, backbone)
        seq, began, before, where, node, place = self._begin(role, turn)
        again = (place, role, tuple(ids))
        self.alike[again] += 1
        sampling = replace(self.sampling, **chosen, seed=ctx.seed(*again, self.alike[again]))
        room = ctx.tokens_left - len(ids)
        sampling = replace(sampling, max_new_tokens=max(1, min(sampling.max_new_tokens, room)))
        if not served.trainable:
            sampling = replace(sampling, temperature=0.0, top_p=1.0)
        done: Completion | None = None
        parsed, error = Parsed(None), None
        try:
            if room < 1:
                raise _no_tokens(role, ctx, len(ids))
            hint = Ask(role, self._view({"messages": messages}), self.ctx.run.question_id)
            done = await self._timed(generate(ctx, backbone, ids, sampling, hint), role)
            parsed = _read(parse, done.text)
        except BaseException as failure:
            error = code_of(failure, "ROLE_ERROR")
            raise
        finally:
            if self.open:  # a task that was left behind has nothing to add to a run that has ended
                told = exchange(backbone, messages, ids, sampling, done, {})
                verdict = {
                    "parsed": jsonable(parsed.value),
                    "valid": error is None and parsed.violation is None,
                    "violation": parsed.violation,
                    "fallback_used": parsed.fallback_used,
                    "error": error,
                }
                facts = {"seq": seq, "node": node, "agent_trainable": served.trainable, "plan": ""}
                ctx.record(row(ctx, where, role, began, before, **facts, **told, **verdict))
        self.require_open()
        return Action(parsed.value, done.text, parsed.violation, done, seq)

    async def use(self, role: str, call: Callable[..., Any], args: tuple[Any, ...], turn: int) -> Any:
        """One call of a tool: see `recording.use`."""
        self._check(role)
        seq, began, before, where, node, _ = self._begin(role, turn)
        result, error, documents = None, None, False
        try:
            result = call(*args)
            if inspect.isawaitable(result):
                result = await self._timed(in_time(self.ctx, result), role)
            documents = _passages(result) and (bool(result) or role == "R")  # of nothing found only the role tells
            self.ctx.spend(retrievals=int(documents))
        except BaseException as failure:
            error = code_of(failure, "TOOL_ERROR")
            raise
        finally:
            if self.open:
                told = {"queries": list(map(str, args)), "documents": jsonable(result)} if documents else {}
                self.ctx.record(
                    row(
                        self.ctx,
                        where,
                        role,
                        began,
                        before,
                        seq=seq,
                        node=node,
                        agent_trainable=False,
                        plan="",
                        prompt_messages=tuple(Message("user", str(a)) for a in args),
                        prompt_token_ids=(),
                        action_text=",".join(d.id for d in result or ()) if documents else _text(result),
                        action_token_ids=(),
                        old_logprobs=(),
                        sampling={},
                        finish_reason="tool" if error is None else "error",
                        truncated=False,
                        parsed=told or {"arguments": jsonable(args), "result": jsonable(result)},
                        valid=error is None,
                        violation=None,
                        fallback_used=False,
                        backbone_version="",
                        error=error,
                    )
                )
        self.require_open()
        return result

    def _check(self, role: str) -> None:
        self.require_open()
        if not (isinstance(role, str) and 0 < len(role) <= ROLE_LENGTH):
            raise UsageError(
                f"the role {role!r} is no name of 1 to {ROLE_LENGTH} characters.",
                code="RECORDING_ROLE",
                hint='act("router", ..)',
            )

    def _begin(self, role: str, turn: int) -> tuple[int, float, Counters, Where, str, str]:
        """Number, start, counters and place of an action, its node, and what its seed knows of where that stands."""
        ctx = self.ctx
        node, place = _place()
        ctx.spend(rounds=max(0, turn - ctx.counters.rounds))
        self.steps[turn] += 1
        where = Where(self.root, turn, self.steps[turn] - 1, "")
        return ctx.take_seq(), ctx.elapsed_ms(), ctx.counters, where, (node or role)[:ROLE_LENGTH], place

    async def _timed(self, work: Coroutine[Any, Any, T], role: str) -> T:
        try:
            return await work
        except DeadlineError as error:
            raise late(self.ctx, f"while {role} was acting") from error

    def _view(self, memory: Mapping[str, Any]) -> View:
        question = self.ctx.run.question
        return View(question, question, "root", memory, counters=self.ctx.counters, limits=self.ctx.limits)


def late(ctx: RunContext, doing: str) -> JadeError:
    """The error of a run whose deadline passed."""
    return JadeError(f"the deadline of {ctx.limits.deadline_s:g} s passed {doing}.", code="LIMIT_DEADLINE")


def code_of(error: BaseException, other: str) -> str:
    """The code of an error; `other` for one that has none of its own."""
    if isinstance(error, JadeError):
        return error.error_code
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | KeyboardInterrupt) else other


def _no_tokens(role: str, ctx: RunContext, prompt: int) -> JadeError:
    used = ctx.limits.tokens - ctx.tokens_left
    return JadeError(
        f"no tokens are left for {role}: {used} of {ctx.limits.tokens} are used or reserved, "
        f"and its prompt has {prompt}.",
        code="LIMIT_TOKENS",
    )


def _read(parse: Callable[[str], Any] | None, text: str) -> Parsed:
    found = text if parse is None else parse(text)
    parsed = found if isinstance(found, Parsed) else Parsed(found)
    return replace(parsed, violation="UNPARSED") if parsed.value is None and parsed.violation is None else parsed


def _place() -> tuple[str, str]:
    """The LangGraph node that this runs in, and its place in the graph's course; empty outside of a graph."""
    from langgraph.config import get_config

    try:
        facts = get_config().get("metadata") or {}
    except RuntimeError:
        return "", ""
    return str(facts.get("langgraph_node") or ""), f"{facts.get('langgraph_step')} {facts.get('langgraph_path')}"


def _encoded(prompt: str | Sequence[Any], backbone: Backbone) -> tuple[tuple[Message, ...], list[int]]:
    """The prompt as messages (none where it is token ids) and as ids. Raises `UsageError` RECORDING_PROMPT."""
    if isinstance(prompt, str):
        prompt = [Message("user", prompt)]
    if prompt and all(isinstance(p, int) for p in prompt):
        return (), list(prompt)
    messages = tuple(map(_message, prompt))
    if not messages:
        raise _wrong_prompt(prompt)
    return messages, backbone.encode(messages)


def _message(given: Any) -> Message:
    if isinstance(given, Message):
        return given
    if isinstance(given, Mapping):
        role, content = given.get("role"), given.get("content")
    else:  # LangChain's have a type
        role, content = getattr(given, "type", None), getattr(given, "content", None)
    known = _ROLES.get(str(role))
    if known is None or not isinstance(content, str):
        raise _wrong_prompt(given)
    return Message(known, content)


def _wrong_prompt(given: object) -> UsageError:
    return UsageError(
        f"{given!r} is no prompt.",
        code="RECORDING_PROMPT",
        known=["a text", "messages of role system, user or assistant with a text", "token ids"],
    )


def _passages(result: Any) -> bool:
    return isinstance(result, list | tuple) and all(isinstance(r, Passage) for r in result)


def _text(result: Any) -> str:
    return "" if result is None else str(result)
