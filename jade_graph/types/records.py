"""What a run leaves: transitions, the run, events while it goes on, and whoever writes them down.

Invariant: one log-probability for each id of an action; a reward that is missing is None, never 0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jade_graph.types.data import Passage, Retriever
from jade_graph.types.models import Backbone, Message
from jade_graph.types.roles import Preset
from jade_graph.types.trace import Counters, Limits, TraceNode

SCHEMA_VERSION = 1


@dataclass(slots=True)
class Transition:
    """One action of a role: a row for the learner (spec: observation, action, reward, ids, log-probabilities).

    `truncated`: the action reached its token limit; `prompt_cut`: documents were shortened to fit the context.
    `len(old_logprobs) == len(action_token_ids)`; `(run_id, attempt, seq)` is unique. `reward`, `value`, `advantage`,
    `return_` stay None until credit is assigned: a missing reward is never 0.
    """

    run_id: str
    question_id: str
    attempt: int
    seq: int
    round: int
    step: int
    depth: int
    node: str
    trace_node: str
    role: str
    agent_trainable: bool
    plan: str
    prompt_messages: tuple[Message, ...]
    prompt_token_ids: tuple[int, ...]
    action_text: str
    action_token_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    sampling: Mapping[str, Any]
    finish_reason: str
    truncated: bool
    parsed: Any
    valid: bool
    violation: str | None
    fallback_used: bool
    counters_before: Mapping[str, int]
    counters_after: Mapping[str, int]
    latency_ms: float
    backbone_version: str
    graph_hash: str
    corpus_id: str
    prompt_cut: bool = False
    started_ms: float = 0.0
    queue_ms: float = 0.0
    error: str | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)
    reward: float | None = None
    value: float | None = None
    advantage: float | None = None
    return_: float | None = None
    done: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def learns(self) -> bool:
        """Whether a learner may train on this row: of a trainable role, with tokens of its own, without an error."""
        return self.agent_trainable and bool(self.action_token_ids) and self.error is None

    @property
    def judges(self) -> int | None:
        """Of an action that training alone takes, to judge another one: the `seq` of that one. It is none of the run's
        own: no counter counts it."""
        found = self.sampling.get("judges")
        return found if isinstance(found, int) else None

    @property
    def predicted(self) -> str | None:
        """The answer that this action predicted, where its role says so: "answer" in what was read from it."""
        answer = self.parsed.get("answer") if isinstance(self.parsed, Mapping) and self.error is None else None
        return answer if isinstance(answer, str) else None


RunStatus = Literal["running", "answered", "failed"]


@dataclass(slots=True)
class Run:
    """One question from start to end. A "failed" run has a named `error`; nothing it did is lost.

    `record_error`: why the run could not be written to its store, where it could not. It is not part of the record.
    """

    id: str
    question: str
    question_id: str
    preset: str
    seed: int
    status: RunStatus = "running"
    answer: str = ""
    error: str | None = None
    error_message: str = ""
    trace: tuple[TraceNode, ...] = ()
    transitions: tuple[Transition, ...] = ()
    counters: Counters = field(default_factory=Counters)
    backbone_version: str = ""
    graph_hash: str = ""
    corpus_id: str = ""
    attempt: int = 0
    started_at: float = 0.0
    wall_ms: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    record_error: str | None = None

    @property
    def plan(self) -> str:
        """The root's workflow, in canonical form."""
        return self.trace[0].plan if self.trace else ""

    @property
    def documents(self) -> tuple[Passage, ...]:
        """Every passage retrieved in the run, in order of first sight."""
        seen: dict[str, Passage] = {}
        for t in self.transitions:
            if t.role == "R" and t.error is None:
                for d in t.parsed.get("documents", ()):
                    found = Passage(d["id"], d.get("text", ""), d.get("title", ""), d["score"], d.get("metadata") or {})
                    seen.setdefault(d["id"], found)
        return tuple(seen.values())

    @property
    def illegal_actions(self) -> int:
        """Of the run's own actions; those that judge them are not counted."""
        return sum(t.violation is not None and t.judges is None for t in self.transitions)


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


@runtime_checkable
class Remembers(Protocol):
    """A recorder that knows which runs it has."""

    def ended(self, run_id: str) -> int | None:
        """The attempt as which a run of this id has ended; None where none has. May block."""
        ...


@runtime_checkable
class Claims(Protocol):
    """A recorder that several processes share, and that knows which of them is at work on a run."""

    def claim(self, run_id: str) -> Callable[[], None] | None:
        """Take the run, until the function that is given back is called or this process dies; None: another has it."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run, for whoever watches it live.

    `kind` is "transition", "trace" (changed nodes), "end", or "waiting" for a person (what it asks). Where tokens are
    asked for, "token": `text` is the next piece of the run's answer, which `role` writes at `trace_node`; and
    "retract": what the tokens so far have said is not the answer, which begins anew.
    """

    kind: str
    run_id: str
    transition: Transition | None = None
    nodes: Mapping[str, TraceNode] = field(default_factory=dict)
    run: Run | None = None
    waiting: tuple[Any, ...] = ()
    text: str = ""
    role: str = ""
    trace_node: str = ""


class Runner(Protocol):
    """Whoever answers questions, as rollouts and evaluations need it: an `Engine`, or the `JadeGraph` around one."""

    @property
    def preset(self) -> Preset: ...
    @property
    def backbone(self) -> Backbone: ...
    @property
    def frozen_backbone(self) -> Backbone: ...
    @property
    def retriever(self) -> Retriever | None: ...
    @property
    def recorder(self) -> Recorder | None: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def k(self) -> int: ...
    @property
    def graph_hash(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...

    def check(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `UsageError` for a plan or sampling that `arun` would refuse."""
        ...

    def arun(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Run]: ...

    def arun_many(self, *args: Any, **kwargs: Any) -> AsyncIterator[Run]: ...
