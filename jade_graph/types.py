"""The map: every word the other modules speak.

Invariant: these are plain values. Nothing here does I/O, holds a model, or knows LangGraph; a `Completion` and a
`Transition` carry token ids and log-probabilities exactly as the backbone produced them, one log-probability per id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jade_graph.workflow.loops import Loop

SCHEMA_VERSION = 1

FinishReason = Literal["stop", "length", "scripted"]


# --- data -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved or indexed piece of text. `score` is the retriever's own (higher is better), 0 when unranked."""

    id: str
    text: str
    title: str = ""
    score: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class SubQuestion:
    """One step of a data set's own decomposition; `#1`, `#2` in `question` stand for earlier answers."""

    question: str
    answer: str
    supporting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its gold answers (any of them is right) and, where the data set has them, supporting passages."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    type: str = ""
    hops: int = 1
    supporting: tuple[str, ...] = ()
    decomposition: tuple[SubQuestion, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


# --- backbone -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an action is drawn. `temperature` 0 is greedy. `top_p` 1 and no top-k: the full distribution.

    `choices` restricts the action to one of these token-id sequences (constrained decoding over a finite language);
    the recorded log-probabilities are then those of the restricted distribution, which is what was sampled.
    `forced` is the action itself: nothing is drawn, and the log-probabilities are those that the model gives it
    (exploration by a mixture of policies, spec section 4).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0
    choices: tuple[tuple[int, ...], ...] | None = None
    forced: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backbone produced: `len(logprobs) == len(token_ids)`, natural logarithm, at the sampling temperature
    (greedy: at temperature 1). An end-of-sequence token that was sampled is the last id; `text` leaves it out.
    `finish_reason` "length" means that `max_new_tokens` cut the action: it then has no end token.
    A hosted model that tells no ids has none here; `prompt_tokens` and `action_tokens` are then what it counted.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    model_version: str
    queue_ms: float = 0.0
    model_ms: float = 0.0
    prompt_tokens: int | None = None
    action_tokens: int | None = None


@runtime_checkable
class Backbone(Protocol):
    """A language model that every role shares. Token in, token out: text is rendered once, by `encode`.

    A backbone whose ids are not the model's own says so by an attribute `exact_ids = False`: its ids only stand in for
    messages, they are not recorded, and its actions never train (`context.knows_ids`).
    """

    @property
    def version(self) -> str:
        """Names the weights; recorded on every completion."""
        ...

    @property
    def profile(self) -> str:
        """Which prompt profile the roles render for this model: "chat" or "compact"."""
        ...

    @property
    def max_context(self) -> int:
        """Prompt plus action, in tokens."""
        ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Apply the chat template (or join, where there is none) and tokenise: the only place that does."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Token ids of an action as the model would emit it, without the end token."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    @property
    def eos_token_id(self) -> int: ...

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, *, hint: Ask | None = None
    ) -> Completion:
        """Sample one action. `hint` names the role and view behind the prompt: scripted backbones answer from it,
        models ignore it. Cancelling the awaiting task withdraws the request. Raises `BackboneError`.
        """
        ...

    async def aclose(self) -> None: ...


# --- blackboard -----------------------------------------------------------------------------------------------------
class Status(StrEnum):
    """Of a trace node. `EXPANDED`: decomposed, waiting for its children."""

    PENDING = "pending"
    RUNNING = "running"
    EXPANDED = "expanded"
    SOLVED = "solved"
    FAILED = "failed"


Order = Literal["serial", "parallel"]


@dataclass(frozen=True, slots=True)
class TraceNode:
    """A (sub-)question on the blackboard. `id` is its path: "0" the root, "0.2" its second sub-question.

    `question` is the text as written, with `#k` references; `resolved` has the siblings' answers put in.
    """

    id: str
    question: str
    parent: str | None = None
    depth: int = 0
    status: Status = Status.PENDING
    resolved: str = ""
    answer: str = ""
    plan: str = ""
    order: Order | None = None
    children: tuple[str, ...] = ()
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", tuple(self.children))  # a checkpoint brings lists back

    @property
    def text(self) -> str:
        return self.resolved or self.question

    @property
    def finished(self) -> bool:
        return self.status in (Status.SOLVED, Status.FAILED)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a run has spent."""

    rounds: int = 0
    sub_questions: int = 0
    retrievals: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    action_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.action_tokens

    def as_dict(self) -> dict[str, int]:
        """What `dataclasses.asdict` gives, without its copying: every action records two of them."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Limits:
    """A run ends within these. `deadline_s` is the one wall-clock deadline, counted from the start of the run."""

    rounds: int = 12
    depth: int = 2
    sub_questions: int = 12
    retrievals: int = 16
    tokens: int = 60_000
    deadline_s: float = 120.0
    decomposition_width: int = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow for one round, e.g. `Plan(("QR", "R", "AG"))`; `str(plan)` is the canonical form `QR,R,AG`."""

    steps: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))  # a checkpoint brings lists back

    def __str__(self) -> str:
        return ",".join(self.steps)


@dataclass(frozen=True, slots=True)
class View:
    """What a role observes: target question, this round's working memory, and its part of the trace.

    `memory` keys written by the stock roles: "queries" (tuple[str, ...]), "documents" and "selected"
    (tuple[Passage, ...]). `siblings` are solved (sub-question, answer) pairs that come before a serial sub-question;
    `children` those of the question being summarised (a failed one has the answer "unknown"). `plans` are the legal
    workflows here and `executors` a line about each of their steps: what a planner needs to know.
    """

    question: str
    root_question: str
    level: Literal["root", "sub"]
    memory: Mapping[str, Any] = field(default_factory=dict)
    siblings: tuple[tuple[str, str], ...] = ()
    children: tuple[tuple[str, str], ...] = ()
    plans: tuple[Plan, ...] = ()
    executors: Mapping[str, str] = field(default_factory=dict)
    counters: Counters = Counters()
    limits: Limits = Limits()
    depth: int = 0

    @property
    def query(self) -> str:
        """What retrieval searches for: the first rewritten query, else the target question."""
        queries = self.memory.get("queries") or ()
        return queries[0] if queries else self.question

    @property
    def evidence(self) -> tuple[Passage, ...]:
        """What the answerer reads: the selected documents where a selector ran, else all retrieved ones."""
        selected = self.memory.get("selected")
        return tuple(selected if selected is not None else self.memory.get("documents") or ())


@dataclass(frozen=True, slots=True)
class Ask:
    """The request behind a prompt: which role was asked, seeing what, about which data-set question."""

    role: str
    view: View
    question_id: str = ""
    trace_node: str = "0"


# --- roles ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed action. `violation` is None for a legal one; `value` None asks for the role's fallback."""

    value: Any
    violation: str | None = None
    fallback_used: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What an action does to the blackboard: any of working-memory updates, an answer, or sub-questions."""

    memory: Mapping[str, Any] = field(default_factory=dict)
    answer: str | None = None
    children: tuple[str, ...] = ()
    order: Order | None = None


RoleKind = Literal["planner", "decomposer", "executor", "summarizer"]


@runtime_checkable
class Role(Protocol):
    """One language-model role: pure, knows no model and no graph. See `jade_graph.testing.roles` for its contract."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str:
        """One line for the planner's prompt: what this role does for a question."""
        ...

    @property
    def kind(self) -> RoleKind: ...
    @property
    def max_new_tokens(self) -> int: ...

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        """The prompt for this view. Raises nothing; knows the profiles "chat" and "compact"."""
        ...

    def parse(self, text: str, view: View) -> Parsed:
        """Read an action. Never raises; a violation is named by a code from `violations`."""
        ...

    def fallback(self, text: str, view: View) -> Any:
        """The value to go on with when `parse` found none."""
        ...

    def effect(self, value: Any, view: View) -> Effect: ...

    @property
    def violations(self) -> tuple[str, ...]:
        """Every violation code that `parse` can return."""
        ...


@runtime_checkable
class Tool(Protocol):
    """An executor that is no language model (the retriever): recorded, never trained."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...

    async def act(self, view: View, retriever: Retriever | None, k: int) -> Effect:
        """Do the work. Raises `JadeError`; the engine retries a `RetrievalError`."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Ranked passages for a query. `corpus_id` names content and encoder: equal ids rank alike."""

    @property
    def corpus_id(self) -> str: ...

    async def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages, best first, no id twice. Raises `RetrievalError`."""
        ...


# --- presets --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Preset:
    """A method as a configuration of the one engine.

    `plan` / `sub_plan` fix the workflow of the root and of sub-questions; None lets the planner write it. `loop`, the
    name of one (entry-point group `jade.loops`) or the loop itself, puts a turn loop in the place of plans.
    `trainable` are the role codes the learner may change (None: all); the others are served by the frozen backbone,
    greedily. `penalties` maps a role code (or "*") to its format penalty. `role_options` are keyword arguments for
    `dataclasses.replace` on a role, e.g. `{"AG": {"max_words": 30}}`.
    """

    name: str
    title: str
    plan: str | None = None
    sub_plan: str | None = None
    plan_rules: tuple[str, ...] = ("jade",)
    trainable: frozenset[str] | None = None
    role_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    penalties: Mapping[str, float] = field(default_factory=lambda: {"*": -1.0})
    credit: str = "terminal_gae"
    alpha: float = 0.0
    beta: float = 0.0
    description: str = ""
    loop: str | Loop | None = None


# --- records --------------------------------------------------------------------------------------------------------
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
    counters: Counters = Counters()
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
        return sum(t.violation is not None for t in self.transitions)
