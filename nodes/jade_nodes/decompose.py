"""QDS and QDP, the decomposers: split a question into sub-questions, to be solved in order or side by side.

Invariant: whatever the model writes, at least one and at most `max_items` distinct, non-empty sub-questions come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Effect, Message, Order, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.prompting import one_line, quote, system_and_user

_HOW = {
    "serial": "in order: a later one may use the answer of the first as #1, of the second as #2, and so on",
    "parallel": "at the same time: none may need the answer of another",
}


@dataclass(frozen=True)
class Decomposer:
    code: str
    name: str
    description: str
    order: Order
    max_items: int = 4
    max_new_tokens: int = 160
    kind: ClassVar[RoleKind] = "decomposer"
    linear: ClassVar[bool] = True
    violations: ClassVar[tuple[str, ...]] = (
        "NO_TAG",
        "EXTRA_TEXT",
        "NUMBERING",
        "EMPTY_ITEM",
        "DUPLICATE",
        "SAME_AS_TARGET",
        "TOO_MANY",
    )

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile != "chat":
            return (Message("user", f"{self.order} : {one_line(view.question)}\n"),)
        return system_and_user(
            f"You split a question into at most {self.max_items} simpler sub-questions that are answered "
            f"{_HOW[self.order]}. Each must be a complete question that can be looked up by itself. Write nothing but "
            "the sub-questions, in the form <q1>first sub-question</q1><q2>second sub-question</q2>",
            f"Question: {quote(view.question)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        found = tags.find_numbered(text, "q")
        target = _plain(view.question)
        plain = [_plain(t) for t in found.texts]
        checks = (
            ("NO_TAG", not found.texts),
            ("EXTRA_TEXT", not found.whole),
            ("NUMBERING", found.numbers != tuple(range(1, len(found.numbers) + 1))),
            ("EMPTY_ITEM", not all(plain)),
            ("DUPLICATE", len(set(plain)) < len(plain)),
            ("SAME_AS_TARGET", target in plain),
            ("TOO_MANY", len(plain) > self.max_items),
        )
        violation = next((code for code, broken in checks if broken), None)
        return Parsed(found.texts) if violation is None else Parsed(None, violation)

    def fallback(self, text: str, view: View) -> tuple[str, ...]:
        """The distinct, non-empty sub-questions that are not the target itself; the target where none is left."""
        target = _plain(view.question)
        kept: dict[str, str] = {}
        for item in tags.find_numbered(text, "q").texts:
            if _plain(item) and _plain(item) != target:
                kept.setdefault(_plain(item), item)
        return tuple(kept.values())[: self.max_items] or (view.question,)

    def effect(self, value: tuple[str, ...], view: View) -> Effect:
        del view
        return Effect(children=tuple(value), order=self.order)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


SERIAL = Decomposer(
    "QDS",
    "Query Decomposition, Serial",
    "splits the question into sub-questions solved one after another, each may use the answers before it",
    "serial",
)
PARALLEL = Decomposer(
    "QDP",
    "Query Decomposition, Parallel",
    "splits the question into independent sub-questions solved at the same time (comparisons, lists)",
    "parallel",
)
