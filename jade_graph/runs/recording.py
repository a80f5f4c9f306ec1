"""Recording a graph that is not ours: the model calls of any agent as transitions of one run.

Invariant: a run that was entered is closed once, with an answer or a named error, and nothing is added to it after
that; an exception of the agent is recorded and goes on its way. What one action leaves is `foreign`'s affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from jade_graph.errors import JadeError, StoreError, UsageError, masked
from jade_graph.runs.foreign import Action, ForeignActor, code_of, late
from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Event, Limits, Question, Recorder, Remembers, Run, Sampling, Status, TraceNode
from jade_graph.workflow.actor import Served
from jade_graph.workflow.context import RunContext, as_question, flushed, knows_ids, require_json, require_new

T = TypeVar("T")

_GRACE_S = 0.25  # after the deadline, so that an action that it cuts is heard first and is recorded with its reason

_current: ContextVar[Recording | None] = ContextVar("jade_recording", default=None)


def record_run(
    question: str | Question,
    *,
    backbone: Backbone,
    name: str = "own",
    recorder: Recorder | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    trainable: Collection[str] | None = None,
    frozen_backbone: Backbone | None = None,
    limits: Limits | None = None,
    graph_hash: str = "",
    corpus_id: str = "",
    metadata: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    attempt: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Recording:
    """Record what is done inside `async with` (or `with`) as one run; `act` finds it by itself.

    Args:
        backbone: serves every trainable role.
        name: of the agent; stands where a preset's name stands (`run.preset`).
        recorder: where the run is written as it happens, e.g. a `jade_graph.runs.store.RunStore`.
        seed: of the run. The seed of each action is derived from it, the node, the role and the prompt, so results do
            not depend on what else is running.
        sampling: how trainable roles are sampled unless `act` says otherwise; default temperature 1, 64 new tokens.
            Its seed is not used.
        trainable: roles that a learner may change (None: all). The others are served greedily by `frozen_backbone`
            (None: by `backbone`) and their rows do not train.
        limits: `deadline_s` and `tokens` hold, the latter for what `act` spends; the rest are the agent's own affair.
            `async with` also interrupts the agent's own waiting shortly after the deadline; `with` cannot.
        graph_hash: names the agent's graph and prompts; change it when they change.
        corpus_id: names what the agent searches.
        metadata: of the run; JSON.

    Raises:
        UsageError: EMPTY_QUESTION, BAD_METADATA, RUN_EXISTS.
    """
    asked = as_question(question)
    if not asked.question.strip():
        raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint="record_run('Who wrote Dune?', ..)")
    run = Run(
        id=run_id or uuid.uuid4().hex,
        question=asked.question,
        question_id=asked.id,
        preset=name,
        seed=seed,
        attempt=attempt,
        backbone_version=backbone.version,
        graph_hash=graph_hash,
        corpus_id=corpus_id,
        metadata={**({"type": asked.type} if asked.type else {}), **(metadata or {})},
    )
    require_json(run.metadata)
    if run_id is not None and isinstance(recorder, Remembers):
        require_new(run_id, recorder.ended(run_id), attempt)
    return Recording(
        RunContext(run, limits or Limits(), recorder, on_event),
        Served(backbone, knows_ids(backbone)),
        Served(frozen_backbone or backbone, False),
        None if trainable is None else frozenset(trainable),
        sampling or Sampling(),
    )


async def act(
    role: str,
    prompt: str | Sequence[Any],
    *,
    parse: Callable[[str], Any] | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    turn: int = 1,
) -> Action:
    """Let the run's model act as `role` and record it. To be called anywhere inside `record_run`.

    Args:
        role: what the action is credited to, at most 40 characters.
        prompt: a text (one user message), messages (`Message`, LangChain's, or mappings with role and content), or
            token ids, which reach the model as they are.
        parse: reads the action. Gives the value, or a `Parsed` with a violation; None means that there is none
            (violation UNPARSED). None instead of a function: the value is the text.
        max_new_tokens, temperature, top_p: instead of those of the run. Only temperature > 0 and top_p 1 can train.
        turn: of an agent that goes round a loop, counted from 1 (`Transition.round`).

    Raises:
        UsageError: NOT_RECORDING, RECORDING_OVER, RECORDING_ROLE, RECORDING_PROMPT.
        JadeError: LIMIT_DEADLINE, LIMIT_TOKENS. BackboneError. Whatever `parse` raises (recorded as ROLE_ERROR).
    """
    chosen = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    return await current().actor.act(role, prompt, parse, {k: v for k, v in chosen.items() if v is not None}, turn)


async def use(role: str, call: Callable[..., Any], *args: Any, turn: int = 1) -> Any:
    """Call a tool, `call(*args)`, plain or async, and record it as an action of `role` that never trains.

    A list of `Passage` counts as a retrieval; they are then `run.documents` where the role is "R".

    Raises:
        UsageError, JadeError: as `act`. Whatever the tool raises (recorded as TOOL_ERROR, or its own code).
    """
    return await current().actor.use(role, call, args, turn)


def act_sync(role: str, prompt: str | Sequence[Any], **options: Any) -> Action:
    """`act` for nodes that are plain functions.

    Raises `UsageError` SYNC_IN_LOOP where it would block the event loop that it waits for, and what `act` raises.
    """
    return current().wait(act(role, prompt, **options))


def use_sync(role: str, call: Callable[..., Any], *args: Any, turn: int = 1) -> Any:
    """`use` for nodes that are plain functions. Errors as `act_sync`."""
    return current().wait(use(role, call, *args, turn=turn))


def current() -> Recording:
    """The recording that this code runs in. Raises `UsageError` NOT_RECORDING."""
    found = _current.get()
    if found is None:
        raise UsageError(
            "this code runs outside of record_run, and only a run can record an action.",
            code="NOT_RECORDING",
            hint="async with record_run(question, backbone=backbone) as rec: await graph.ainvoke(..)",
        )
    return found


class Recording:
    """One run being recorded; made by `record_run`. Set `answer`; after the block `run` is complete."""

    def __init__(
        self,
        ctx: RunContext,
        trainable: Served,
        frozen: Served,
        roles: frozenset[str] | None,
        sampling: Sampling,
    ) -> None:
        root = TraceNode("0", ctx.run.question, resolved=ctx.run.question, status=Status.RUNNING)
        self.ctx, self.actor = ctx, ForeignActor(ctx, root, trainable, frozen, roles, sampling)
        self._token: Token[Recording | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: asyncio.Timeout | None = None

    @property
    def run(self) -> Run:
        return self.ctx.run

    @property
    def answer(self) -> str:
        """The run's answer. A run that ends without one has failed (NO_ANSWER)."""
        return self.run.answer

    @answer.setter
    def answer(self, text: str) -> None:
        self.actor.require_open()
        if not isinstance(text, str):
            raise UsageError(
                f"the answer is {text!r}, no text.", code="RECORDING_ANSWER", hint='rec.answer = state["answer"]'
            )
        self.run.answer = text

    # --- from start to end --------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Recording:
        self._open()
        self._loop = asyncio.get_running_loop()
        self._clock = asyncio.timeout(self.ctx.limits.deadline_s + _GRACE_S)
        await self._clock.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._clock is not None
        try:
            await self._clock.__aexit__(kind, error, trace)
        except TimeoutError as expired:
            ended = late(self.ctx, "while the agent was waiting")
            self._close(ended)
            await flushed(self.ctx.recorder, self.run)
            raise ended from expired
        self._close(error)
        if not isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            await flushed(self.ctx.recorder, self.run)

    def __enter__(self) -> Recording:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(error)
        if self.ctx.recorder is not None and not isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            run_sync(flushed(self.ctx.recorder, self.run))

    def _open(self) -> None:
        if self._token is not None:
            raise UsageError(
                f"run {self.run.id!r} was begun before.", code="RECORDING_OVER", hint="one record_run(..) a question"
            )
        trainable = self.actor.trainable.backbone
        self.ctx.hold(trainable, self.actor.frozen.backbone)
        self.run.backbone_version = self.ctx.leased(trainable).version
        self.actor.open = True
        self.ctx.started, self.run.started_at = time.monotonic(), time.time()
        self.ctx.open()
        self.ctx.changed({"0": self.actor.root})
        self._token = _current.set(self)

    def _close(self, error: BaseException | None) -> None:
        self.actor.open = False
        assert self._token is not None
        with contextlib.suppress(ValueError):  # left in another context than it was entered in: nothing to put back
            _current.reset(self._token)
        run = self.run
        if error is not None:
            run.status, run.error = "failed", code_of(error, "NODE_ERROR")
            told = str(error) if isinstance(error, JadeError) else f"{type(error).__name__}: {error}"
            run.error_message = "" if run.error == "CANCELLED" else masked(told)
        elif not run.answer.strip():
            run.status, run.error, run.error_message = "failed", "NO_ANSWER", "the agent ended and set no answer."
        else:
            run.status = "answered"
        solved = Status.SOLVED if run.status == "answered" else Status.FAILED
        run.trace = (replace(self.actor.root, status=solved, answer=run.answer, error=run.error),)
        with contextlib.suppress(StoreError):  # a store that was closed: `close` says so on the run
            self.ctx.changed({"0": run.trace[0]})
        self.ctx.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for an action from a thread without an event loop. Raises `UsageError` SYNC_IN_LOOP."""
        if self._loop is None:
            return run_sync(work)
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            work.close()
            raise UsageError(
                "a synchronous action was asked for on the event loop that would carry it out.",
                code="SYNC_IN_LOOP",
                hint="await act(..)",
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


__all__ = ["Action", "Recording", "act", "act_sync", "current", "record_run", "use", "use_sync"]
