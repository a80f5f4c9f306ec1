"""The plan grammar: which workflows a planner may write, and what is wrong with the others.

Invariant: the language is a finite set of plans, so every text is either one of them or gets a named violation; what is
legal here can be executed by the graph. Source: JADE section 3 (workflow generation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from jade_graph.errors import GraphError, UsageError
from jade_graph.types import Parsed, Plan
from jade_graph.workflow import tags

DECOMPOSERS = ("QDS", "QDP")
ANSWERER = "AG"
VIOLATIONS = (
    "NO_TAG",
    "EXTRA_TEXT",
    "UNKNOWN",
    "DUPLICATE",
    "ORDER",
    "DS_WITHOUT_R",
    "NO_AG",
    "MIXED_DECOMPOSITION",
    "EMPTY_ITEM",
    "NOT_ALLOWED",
)

Plans = frozenset[Plan]
PlanRule = Callable[[Plans], Plans]
"""Adds to or removes from the legal plans; entry-point group `jade.plan_rules`."""

_TAG = tags.ends("workflow")


def jade_rule(plans: Plans) -> Plans:
    """The paper's eight plans: `QDS | QDP | [QR,][R,[DS,]]AG`."""
    chains = {
        Plan(tuple(code for code, used in zip(("QR", "R", "DS", "AG"), (qr, r, ds, True), strict=True) if used))
        for qr, r, ds in product((False, True), repeat=3)
        if r or not ds
    }
    return plans | chains | {Plan((code,)) for code in DECOMPOSERS}


def no_closed_book_rewrite(plans: Plans) -> Plans:
    """Take `QR,AG` out: rewriting a query that is never searched only costs a call."""
    return plans - {Plan(("QR", "AG"))}


def rerank(plans: Plans) -> Plans:
    """Behind every retrieval the passages may be ranked again: `R,RR,AG` beside `R,AG`."""
    again = {Plan(tuple(c for code in p.steps for c in ((code, "RR") if code == "R" else (code,)))) for p in plans}
    return plans | {p for p in again if p.steps.count("RR") == 1}


@dataclass(frozen=True, slots=True)
class PlanGrammar:
    """The legal plans, shortest first, of one graph or of one place in a run.

    `known` are codes that exist although no plan here has them: naming one is NOT_ALLOWED rather than UNKNOWN.
    """

    plans: tuple[Plan, ...]
    known: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rules: Iterable[PlanRule]) -> PlanGrammar:
        """Apply the rules in order. Raises `GraphError` when they leave no plan."""
        plans: Plans = frozenset()
        for rule in rules:
            plans = frozenset(rule(plans))
        if not plans:
            raise GraphError("the plan rules leave no legal plan.", code="GRAPH_NO_PLAN", hint='plan_rules=("jade",)')
        return cls(tuple(sorted(plans, key=lambda p: (len(p.steps), p.steps))))

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(code for plan in self.plans for code in plan.steps)

    def without(self, codes: frozenset[str]) -> PlanGrammar:
        """What may still be planned without these steps: the depth or sub-question limit forbids decomposition."""
        kept = tuple(p for p in self.plans if not codes & set(p.steps))
        return PlanGrammar(kept or self.plans, self.known | self.codes)

    def violation(self, steps: Sequence[str]) -> str | None:
        """Why these steps are no legal plan, or None: the first that applies, in the order of `VIOLATIONS`."""
        if Plan(tuple(steps)) in self.plans:
            return None
        filled = [s for s in steps if s]
        known = self.known | self.codes
        splits = set(filled) & set(DECOMPOSERS)
        checks = (
            ("UNKNOWN", any(s not in known for s in filled)),
            ("EMPTY_ITEM", len(filled) < len(steps) or not filled),
            ("DUPLICATE", len(set(filled)) < len(filled)),
            ("MIXED_DECOMPOSITION", len(filled) > 1 and bool(splits)),
            ("DS_WITHOUT_R", "DS" in filled and "R" not in filled),
            ("NO_AG", ANSWERER not in filled and not splits),
            ("ORDER", any(sorted(filled) == sorted(p.steps) for p in self.plans)),
        )
        return next((code for code, broken in checks if broken), "NOT_ALLOWED")

    def parse(self, text: str) -> Parsed:
        """Read `<workflow>A,B</workflow>`: tags in any case, the whole output, white space apart.

        `value` is the plan when it is legal, else None.
        """
        found = next(tags.pairs(text, _TAG), None)
        if found is None:
            return Parsed(None, "NO_TAG")
        steps = tuple(item.strip().upper() for item in found.inner.split(","))
        extra = text[: found.start].strip() or text[found.end :].strip()
        violation = self.violation(steps)
        if violation is None:
            return Parsed(None, "EXTRA_TEXT") if extra else Parsed(Plan(steps))
        return Parsed(None, violation)

    def require(self, text: str) -> Plan:
        """A plan given by a person or a preset, canonical form. Raises `UsageError` PLAN_ILLEGAL."""
        steps = tuple(item.strip().upper() for item in text.split(","))
        violation = self.violation(steps)
        if violation:
            raise UsageError(
                f"the plan {text!r} is not legal ({violation}).", code="PLAN_ILLEGAL", known=map(str, self.plans)
            )
        return Plan(steps)


def workflow(plan: Plan | str) -> str:
    """A plan as a planner writes it."""
    return f"<workflow>{plan}</workflow>"
