"""KU, the Update role: where in the knowledge the new evidence belongs.

Invariant: (query, evidence) overwrites one step that is there or is added as the next one; nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jade_graph.types import Alternative, Effect, Message, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.m_ask.knowledge import Knowledge, chat_state, compact_state, evidence_of, query_of
from jade_nodes.prompting import one_line, quote, system_and_user

_STEP = re.compile(r"t\s*([1-9]\d{0,2})", re.IGNORECASE)


@dataclass(frozen=True)
class KnowledgeUpdate:
    code: ClassVar[str] = "KU"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Update"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "puts the evidence into the knowledge: over a step, or as a new one"
    violations: ClassVar[tuple[str, ...]] = ("NO_TAG", "EXTRA_TEXT", "MULTIPLE", "BAD_ITEM", "OUT_OF_RANGE")
    max_new_tokens: int = 24

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        k, query, evidence = Knowledge.of(view), query_of(view), evidence_of(view)
        if profile != "chat":
            told = f"evidence : {one_line(evidence)}\nupdate : {one_line(query)}\n"
            return (Message("user", compact_state(k) + told),)
        return system_and_user(
            "You keep the knowledge about a question. Say where the new evidence belongs: over the step that it "
            f"answers or corrects, in the form <update>t1</update>, or as a new step, <add>t{len(k.steps) + 1}</add>. "
            "Write nothing else.",
            f"Question: {quote(view.question)}\n\n{chat_state(k)}\n\nQuery: {one_line(query)}\n"
            f"New evidence: {one_line(evidence)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        count = len(Knowledge.of(view).steps)
        written, added = tags.find(text, "update"), tags.find(text, "add")
        texts = (*written.texts, *added.texts)
        step = _STEP.fullmatch(texts[0]) if texts else None
        number = int(step[1]) if step else 0
        legal = number == count + 1 if added.texts else 1 <= number <= count
        checks = (
            ("NO_TAG", not texts),
            ("MULTIPLE", len(texts) > 1),
            ("EXTRA_TEXT", not (written.whole or added.whole)),
            ("BAD_ITEM", step is None),
            ("OUT_OF_RANGE", not legal),
        )
        violation = next((code for code, broken in checks if broken), None)
        if violation is not None:
            return Parsed(None, violation)
        return Parsed({"add": number} if added.texts else {"update": number})

    def fallback(self, text: str, view: View) -> dict[str, int]:
        """What cannot be read adds: no knowledge is lost."""
        del text
        return {"add": len(Knowledge.of(view).steps) + 1}

    def effect(self, value: Mapping[str, int], view: View) -> Effect:
        steps = Knowledge.of(view).steps
        step = (query_of(view), evidence_of(view))
        if "update" in value:
            place = value["update"] - 1
            return Effect(memory={"steps": (*steps[:place], step, *steps[place + 1 :])})
        return Effect(memory={"steps": (*steps, step)})

    def alternatives(self, text: str, value: Any, documents: int) -> tuple[Alternative, ...]:
        """Over a step, or as a new one."""
        del text, documents
        over, new = "<update>", "<add>"
        if isinstance(value, Mapping) and "update" in value:
            return (Alternative("put over a step", over, new, ends=False),)
        return (Alternative("added a step", new, over, ends=False),)


UPDATE = KnowledgeUpdate()
