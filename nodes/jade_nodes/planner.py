"""PL, the planner: reads a question and writes the workflow that answers it.

Invariant: its action is one of the plans legal at this point of the run (`view.plans`); anything else is a named
violation and falls back to decomposition for the user's question and to R,AG for a sub-question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jade_graph.types import Alternative, Effect, Message, Parsed, Plan, RoleKind, View
from jade_graph.workflow.plans import VIOLATIONS, PlanGrammar, jade_rule, workflow
from jade_nodes.prompting import one_line, quote, system_and_user


@dataclass(frozen=True)
class Planner:
    code: ClassVar[str] = "PL"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Planner"
    kind: ClassVar[RoleKind] = "planner"
    description: ClassVar[str] = "writes the workflow of executors for a question"
    violations: ClassVar[tuple[str, ...]] = VIOLATIONS
    max_new_tokens: int = 40
    root_fallback: str = "QDS"
    sub_fallback: str = "R,AG"

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile != "chat":
            return (Message("user", f"plan {view.level} : {one_line(view.question)}\n"),)
        executors = "\n".join(f"- {code}: {line}" for code, line in view.executors.items())
        plans = "\n".join(f"- {plan}" for plan in view.plans)
        left = view.limits.rounds - view.counters.rounds
        whose = "the user asked it" if view.level == "root" else "a sub-question"
        lines = [f"Question ({whose}): {quote(view.question)}"]
        lines += [f"Already known: {one_line(q)} -> {one_line(a)}" for q, a in view.siblings]
        lines.append(f"Rounds left: {left}. Retrievals left: {view.limits.retrievals - view.counters.retrievals}.")
        return system_and_user(
            "You are the Planner of a question-answering system. Choose the cheapest workflow of executors that will "
            f"answer the question correctly.\n\nExecutors:\n{executors}\n\nLegal workflows:\n{plans}\n\n"
            "Write nothing but the workflow, in the form <workflow>R,AG</workflow>",
            "\n".join(lines),
        )

    def parse(self, text: str, view: View) -> Parsed:
        # An executor that no plan may use here (at the depth limit) is still a known one.
        return PlanGrammar(view.plans, frozenset(view.executors)).parse(text)

    def fallback(self, text: str, view: View) -> Plan:
        del text
        wanted = self.root_fallback if view.level == "root" else self.sub_fallback
        by_name = {str(plan): plan for plan in view.plans}
        return by_name.get(wanted) or by_name.get(self.sub_fallback) or view.plans[0]

    def effect(self, value: Plan, view: View) -> Effect:
        del view
        return Effect(memory={"plan": value})

    def alternatives(self, text: str, value: Any, documents: int) -> tuple[Alternative, ...]:
        """The plan that was taken against each other one of the paper's."""
        del text, documents
        plans = PlanGrammar.of([jade_rule]).plans
        taken = workflow(str(value))
        return tuple(
            Alternative(f"plan {value}, not {plan}", taken, workflow(plan)) for plan in plans if str(plan) != str(value)
        )


PLANNER = Planner()
