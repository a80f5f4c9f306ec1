"""KP, the Plan role: sub-questions with what is known of each, and a first answer.

Invariant: at least one step comes out and at most `max_steps`, in the order q1, a1, q2, a2 ..; an answer that is not
known is "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jade_graph.types import Effect, Message, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.answering import UNKNOWN
from jade_nodes.prompting import one_line, quote, system_and_user

_ITEM = tags.ends(r"([qa])", r"(\d{1,3})")


@dataclass(frozen=True)
class KnowledgePlan:
    code: ClassVar[str] = "KP"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Plan"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "breaks the question into steps, says what it knows of each, and guesses the answer"
    violations: ClassVar[tuple[str, ...]] = (
        "NO_TAG",
        "NO_FINAL",
        "EXTRA_TEXT",
        "MULTIPLE",
        "EMPTY_ITEM",
        "TOO_MANY",
        "ORDER",
        "TOO_LONG",
    )
    max_steps: int = 5
    max_words: int = 40
    max_new_tokens: int = 384

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile != "chat":
            return (Message("user", f"steps : {one_line(view.question)}\n"),)
        return system_and_user(
            "You plan how to answer a question with a search engine. Write at most "
            f"{self.max_steps} sub-questions in the order in which they must be answered, each with its answer, or "
            "'unknown' where you do not know it; #1, #2 stand for earlier answers. End with the answer to the "
            "question, or 'unknown'. Write nothing else, in the form\n"
            "<q1>first sub-question</q1><a1>unknown</a1><q2>second</q2><a2>unknown</a2><final_answer>unknown"
            "</final_answer>",
            f"Question: {quote(view.question)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        del view
        found = list(tags.pairs(text, _ITEM))
        items = [(p.opening[1].lower(), int(p.opening[2]), _flat(p.inner)) for p in found]
        final = tags.find(text, "final_answer")
        rest = tags.find(tags.without(text, found), "final_answer")
        wanted = [(kind, i) for i in range(1, len(items) // 2 + 1) for kind in ("q", "a")]
        in_order = [(kind, i) for kind, i, _ in items] == wanted and text.lower().rfind("</a") < _place(text)
        checks = (
            ("NO_TAG", not items),
            ("NO_FINAL", not final.texts),
            ("EXTRA_TEXT", not rest.whole),
            ("MULTIPLE", len(final.texts) > 1),
            ("EMPTY_ITEM", not all([*final.texts, *(t for _, _, t in items)])),
            ("TOO_MANY", len(items) > 2 * self.max_steps),
            ("ORDER", not in_order),
            ("TOO_LONG", any(tags.words(t) > self.max_words for t in (*final.texts, *(t for _, _, t in items)))),
        )
        violation = next((code for code, broken in checks if broken), None)
        if violation is not None:
            return Parsed(None, violation)
        texts = [t for _, _, t in items]
        return Parsed({"steps": tuple(zip(texts[::2], texts[1::2], strict=True)), "answer": _flat(final.texts[0])})

    def fallback(self, text: str, view: View) -> dict[str, Any]:
        """The readable sub-questions with the answers of their numbers, else the question itself as the only step."""
        found: dict[str, dict[int, str]] = {"q": {}, "a": {}}
        for p in tags.pairs(text, _ITEM):
            found[p.opening[1].lower()].setdefault(int(p.opening[2]), _flat(p.inner))
        asked = [(i, q) for i, q in sorted(found["q"].items()) if q][: self.max_steps]
        steps = tuple((q, found["a"].get(i) or UNKNOWN) for i, q in asked) or ((view.question, UNKNOWN),)
        final = next((t for t in tags.find(text, "final_answer").texts if t), UNKNOWN)
        return {"steps": steps, "answer": _flat(final)}

    def effect(self, value: Mapping[str, Any], view: View) -> Effect:
        del view
        return Effect(memory={"steps": value["steps"], "predicted": value["answer"], "asked": ()})


def _place(text: str) -> int:
    return text.lower().find("<final_answer>")


def _flat(text: str) -> str:
    return " ".join(text.split())


PLAN = KnowledgePlan()
