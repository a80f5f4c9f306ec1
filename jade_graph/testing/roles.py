"""The conformance suite of roles: what the engine relies on, as a function that third parties call in their tests.

Invariant: it finds every way in which a role could make a run raise or stall: exceptions, unnamed violations, missing
fallbacks, effects that are no effects. Use: `check_role(MY_ROLE)`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from jade_graph.types import Effect, Message, Parsed, Passage, Plan, Role, View
from jade_graph.workflow.plans import PlanGrammar, jade_rule

_SCRAPS = (
    "", " ", "\n", "Paris", "<answer>", "</answer>", "<answer>Paris</answer>", "<query>", "</query>",
    "<query>films by Ann Lee</query>", "<id>", "</id>", "<id>Document0,Document9</id>", "<id></id>", "Document1", ",",
    "<q1>who?</q1>", "<q2>when was #1 born?</q2>", "<q3></q3>", "<workflow>", "</workflow>",
    "<workflow>R,AG</workflow>", "<WORKFLOW>qds</WORKFLOW>", "<workflow>DS,AG</workflow>", "R,AG", "\x00", "é漢🎬",
    "word " * 120, "<q1>" * 50, "‹answer›", "Document0: fake\n", "#1", "<answer></answer>",
)  # fmt: skip


class ContractError(AssertionError):
    """A role breaks the contract of `jade_graph.types.Role`; the message names role, input and rule."""


def views() -> list[View]:
    """Typical and nasty observations: root and sub-questions, with and without documents, hostile text."""
    plans = PlanGrammar.of([jade_rule]).plans
    documents = tuple(Passage(str(i), f"Text {i} <answer>no</answer>\nDocument7: fake", f"Title {i}") for i in range(5))
    return [
        View("Who made the film X?", "Who made the film X?", "root", plans=plans),
        View("When was Ann Lee born?", "When was its director born?", "sub", plans=plans[:3],
             siblings=(("Who directed it?", "Ann Lee"),), depth=1),
        View("a?", "a?", "root", memory={"documents": documents, "queries": ("films by Ann",)}, plans=plans),
        View("a?", "a?", "root", memory={"documents": documents, "selected": ()}, plans=plans),
        View("b?", "b?", "root", children=(("a?", "1"), ("c?", "unknown")), plans=plans),
        View("<answer>x</answer> <workflow>QDS</workflow> é漢🎬 " + "long " * 400, "r", "root", plans=plans),
    ]  # fmt: skip


def outputs(seed: int = 0, count: int = 200) -> Iterator[str]:
    """Fragments of actions put together at random: what untrained models write."""
    yield from _SCRAPS
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choices(_SCRAPS, k=rng.randint(1, 5)))


def check_role(role: Role, *, profiles: Sequence[str] = ("chat", "brief", "compact"), seed: int = 0) -> None:
    """Raise `ContractError` for the first broken rule."""
    _require(isinstance(role, Role), role, "", "it lacks members of jade_graph.types.Role")
    _require(role.code.isalnum() and role.code == role.code.upper(), role, role.code, "codes are upper-case letters")
    _require(role.max_new_tokens > 0, role, str(role.max_new_tokens), "max_new_tokens must be positive")
    for view in views():
        for profile in profiles:
            first, second = role.render(view, profile), role.render(view, profile)
            _require(first == second, role, profile, "render must be pure: equal views, equal prompts")
            _require(
                bool(first) and all(isinstance(m, Message) and m.content for m in first),
                role, profile, "render must return non-empty messages",
            )  # fmt: skip
        for text in outputs(seed):
            _check_action(role, text, view)


def _check_action(role: Role, text: str, view: View) -> None:
    try:
        parsed = role.parse(text, view)
        value = parsed.value if parsed.value is not None else role.fallback(text, view)
        effect = role.effect(value, view)
    except Exception as error:
        raise ContractError(f"{role.code}: {text!r}: raised {type(error).__name__}: {error}") from error
    _require(isinstance(parsed, Parsed) and role.parse(text, view) == parsed, role, text, "parse must be pure")
    named = parsed.violation is None or parsed.violation in role.violations
    _require(named, role, text, f"violation {parsed.violation!r} is not in `violations`")
    _require(parsed.value is not None or parsed.violation is not None, role, text, "no value and no violation")
    _require(value is not None, role, text, "the fallback gave None")
    _require(isinstance(effect, Effect), role, text, "effect must return an Effect")
    moves = bool(effect.memory) or effect.answer is not None or bool(effect.children)
    _require(moves, role, text, "the effect changes nothing: the run would stall")
    _require(effect.answer is None or effect.answer.strip() != "", role, text, "the answer is empty")
    if role.kind == "planner":
        plan = effect.memory.get("plan")
        _require(isinstance(plan, Plan) and plan in view.plans, role, text, "a planner's effect is a legal plan")
    if role.kind == "decomposer":
        _require(all(q.strip() for q in effect.children), role, text, "sub-questions must not be empty")
        _require(effect.order is not None, role, text, "a decomposer says in which order its children run")


def _require(condition: bool, role: Role, text: str, rule: str) -> None:
    if not condition:
        raise ContractError(f"{getattr(role, 'code', role)}: {text!r}: {rule}")
