"""Who acts: roles, tools, the loops and plans that order them, and presets, which choose among all of these.

Invariant: roles and loops are pure; they know no model, no store and no graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jade_graph.types.data import Retriever
from jade_graph.types.models import Message
from jade_graph.types.trace import Order, View


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
    """One language-model role: pure, knows no model and no graph. See `jade_graph.testing.roles` for its contract.

    A role that writes an answer between tags names them by an attribute `answer_tag` ("answer" for `<answer>`): what
    stands there is then shown while it is written. The answer of a role that names none is shown once it is read.
    """

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
        """The prompt for this view. Raises nothing; knows the profiles "chat" (instructions), "brief" and "compact"."""
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


@dataclass(frozen=True, slots=True)
class Alternative:
    """A fixed choice that an action made, and what it might have been instead.

    Attributes:
        name: for people: "Document 2 kept".
        choice, other: how the action's text begins in either case; with `ends` these are whole actions.
        document: which document of the prompt it is about; None: about the question.
    """

    name: str
    choice: str
    other: str
    document: int | None = None
    ends: bool = True


@runtime_checkable
class Chooses(Protocol):
    """A role whose action ends in a fixed choice says so, and can be looked into (`jade_graph.patching`)."""

    def alternatives(self, text: str, value: Any, documents: int) -> tuple[Alternative, ...]:
        """The choices in a recorded action; the first is looked at where none is named.

        Args:
            text: the action.
            value: as it was read and recorded, plain.
            documents: how many its prompt has.
        """
        ...


@runtime_checkable
class Tool(Protocol):
    """An executor that is no language model (the retriever): recorded, never trained.

    Each of its actions counts as a search of the run, unless the tool says of itself `searches = False`.
    """

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...

    async def act(self, view: View, retriever: Retriever | None, k: int) -> Effect:
        """Do the work. Raises `JadeError`; the engine retries a `RetrievalError`."""
        ...


END = "end"
"""Stands for the end of the loop in its edges, and is what `Loop.after` returns there."""

Edge = tuple[str, str]


@runtime_checkable
class Loop(Protocol):
    """A workflow as a turn loop over a state: the working memory that its parts read and write.

    The memory is a mapping of plain values (texts, numbers, tuples, `Passage`s), so that a checkpoint holds it; what
    its keys mean is agreed between the loop and its parts. Methods are pure, and given equal views decide alike.
    """

    @property
    def name(self) -> str:
        """Recorded as the plan of everything that is done in the loop."""
        ...

    @property
    def parts(self) -> tuple[str | Role | Tool, ...]:
        """Who takes part, the first to act first: codes of installed parts (`jade.roles`), or the parts themselves."""
        ...

    @property
    def edges(self) -> tuple[Edge, ...]:
        """(code, code) for whoever may follow within a turn, and (code, END)."""
        ...

    @property
    def turns(self) -> tuple[Edge, ...]:
        """(code, code) for whoever may follow in a new turn, which costs one of `limits.rounds`."""
        ...

    def after(self, code: str, view: View) -> str:
        """Who acts after this part: a code that an edge leads to, or END. `view.memory` has what the part wrote."""
        ...

    def answer(self, view: View) -> str:
        """What to answer if the loop ends now; empty: nothing yet. Asked at END and where no rounds are left."""
        ...


@dataclass(frozen=True, slots=True)
class Preset:
    """A method as a configuration of the one engine.

    `plan` / `sub_plan` fix the workflow of the root and of sub-questions; None lets the planner write it. `loop`, the
    name of one (entry-point group `jade.loops`) or the loop itself, puts a turn loop in the place of plans.
    `trainable` are the role codes the learner may change (None: all); the others are served by the frozen backbone,
    greedily. `penalties` maps a role code (or "*") to its format penalty. `role_options` are keyword arguments for
    `dataclasses.replace` on a role, e.g. `{"AG": {"max_words": 30}}`. `compress` are the role codes whose text training
    may make shorter (docs/methods/scma.md); a graph that serves does not know of it.
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
    compress: tuple[str, ...] = ()
