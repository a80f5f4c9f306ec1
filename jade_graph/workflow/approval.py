"""A person between the planner and its plan: what is asked, and what an answer means.

Invariant: pure. An answer either names a legal plan, or rejects the question, or is asked for again with the reason; a
run whose plan a person replaced says so, and is never scored: its outcome is not the planner's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jade_graph.errors import GraphError, unknown
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
    if isinstance(said, Mapping):
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
