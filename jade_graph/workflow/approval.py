"""A person between the planner and its plan: what is asked, and what an answer means.

Invariant: pure. An answer either names a legal plan, or rejects the question, or is asked for again with the reason; a
run whose plan a person replaced says so, and is never scored: its outcome is not the planner's doing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from langgraph.types import Command, Interrupt

from jade_graph.errors import GraphError, UsageError, unknown
from jade_graph.types import Plan, View
from jade_graph.workflow.plans import PlanGrammar

Approve = Literal["root", "all"]
APPROVE: tuple[Approve, ...] = ("root", "all")
REPLACED = "replaced_plans"
"""Key of `Run.metadata`: trace node to [the planner's plan, the person's]."""

_YES = frozenset({"", "approve", "approved", "yes", "y", "ok"})
_NO = frozenset({"reject", "rejected", "no", "n"})


def question(view: View, plan: Plan, trace_node: str, run_id: str, problem: str = "") -> dict[str, Any]:
    """What the interrupt shows: the plan, what it is for, the legal others, and what was wrong with the last answer."""
    asked = {
        "kind": "approve_plan",
        "run_id": run_id,
        "trace_node": trace_node,
        "question": view.question,
        "plan": str(plan),
        "steps": {code: view.executors.get(code, "") for code in plan.steps},
        "legal_plans": [str(p) for p in view.plans],
    }
    return {**asked, "problem": problem} if problem else asked


def answer(said: Any, plan: Plan, view: View) -> Plan | str | None:
    """The plan to run, None for a rejection, or a text: what is wrong with the answer.

    `said`: True, "approve", or nothing to approve; False or "reject"; a workflow ("QR,R,AG"); or {"plan": ..}.
    """
    if isinstance(said, Mapping) and ("plan" in said or "approve" in said):
        said = said.get("plan", said.get("approve"))
    if said is None or said is True:
        return plan
    if said is False:
        return None
    if not isinstance(said, str):
        return f"{said!r} is no answer: approve, reject, or a legal plan."
    word = said.strip().lower()
    if word in _YES | _NO:
        return plan if word in _YES else None
    by_name = {str(p): p for p in view.plans}
    wanted = ",".join(step.strip().upper() for step in said.split(","))
    if wanted in by_name:
        return by_name[wanted]
    violation = PlanGrammar(view.plans, frozenset(view.executors)).violation(tuple(wanted.split(",")))
    return f"the plan {said!r} is not legal here ({violation})."


def answers(said: Any, waiting: Sequence[str]) -> dict[str, Any]:
    """What is said to each that waits, by the id of its interrupt.

    Args:
        said: one answer for whatever waits, or a mapping from ids to answers. A plan is for one question: where several
            wait, only a yes or a no is for all of them.

    Raises:
        UsageError: UNKNOWN_INTERRUPT, RESUME_AMBIGUOUS.
    """
    if isinstance(said, Mapping) and said and all(_is_id(key) for key in said):
        for key in said:
            if key not in waiting:
                raise unknown("interrupt", str(key), waiting, code="UNKNOWN_INTERRUPT", hint="the ids in `interrupts`")
        return dict(said)
    if len(waiting) > 1 and not _for_all(said):
        raise UsageError(
            f"{len(waiting)} plans wait, and {said!r} does not say for which it is.",
            code="RESUME_AMBIGUOUS",
            known=waiting,
            hint="Command(resume={ID: ANSWER, ..}) with the ids in `interrupts`; True approves all of them",
        )
    return dict.fromkeys(waiting, said)


def command(said: Any, waiting: Sequence[str]) -> Command[Any]:
    """What a person said, as LangGraph takes it; nothing is a yes. Raises `UsageError` BAD_RESUME, and as `answers`."""
    given = said if isinstance(said, Command) else Command(resume=True if said is None else said)
    if given.resume is None:
        if not given.update and not given.goto:
            raise UsageError(
                f"{given!r} says nothing to the run that waits.", code="BAD_RESUME", hint="Command(resume=True)"
            )
        return given
    return replace(given, resume=answers(given.resume, waiting)) if waiting else given


def _for_all(said: Any) -> bool:
    if isinstance(said, Mapping) and set(said) == {"approve"}:
        said = said["approve"]
    return isinstance(said, bool) or (isinstance(said, str) and said.strip().lower() in _YES | _NO)


def _is_id(key: Any) -> bool:
    return isinstance(key, str) and len(key) == 32 and set(key) <= set("0123456789abcdef")


def told(interrupts: Sequence[Interrupt]) -> tuple[dict[str, Any], ...]:
    """What is asked, each with the id by which it can be answered."""
    asked = [(i.id, i.value if isinstance(i.value, Mapping) else {"value": i.value}) for i in interrupts]
    return tuple({"id": key, **value} for key, value in asked)


def checked(approve: Approve | None, checkpointer: Any) -> Approve | None:
    """Raises `UsageError` BAD_APPROVE, `GraphError` GRAPH_NO_CHECKPOINTER."""
    if approve is not None and approve not in APPROVE:
        raise unknown("value of approve", str(approve), APPROVE, code="BAD_APPROVE")
    if approve is not None and checkpointer is None:
        raise GraphError(
            "a run that waits for a person has to be kept somewhere, and no checkpointer is given.",
            code="GRAPH_NO_CHECKPOINTER",
            hint="checkpointer=langgraph.checkpoint.memory.InMemorySaver()",
        )
    return approve
