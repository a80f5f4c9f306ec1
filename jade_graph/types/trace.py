"""The blackboard: the trace of a question and its parts, what is spent, and what a role sees of it.

Invariant: plain, frozen values that a checkpoint can hold and bring back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from jade_graph.types.data import Passage


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


def path(node_id: str) -> tuple[int, ...]:
    """ "0.2.1" -> (0, 2, 1): sorts a trace as a person reads it."""
    return tuple(map(int, node_id.split(".")))


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
