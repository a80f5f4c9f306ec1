"""KA, the Answer role: the predicted answer from the knowledge as it stands.

Invariant: always an answer, one line, of at most `max_words` words when the action was legal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Effect, Message, Parsed, RoleKind, View
from jade_nodes.answering import VIOLATIONS, parse_answer, raw_answer
from jade_nodes.m_ask.knowledge import Knowledge, chat_state, compact_state
from jade_nodes.prompting import one_line, quote, system_and_user


@dataclass(frozen=True)
class KnowledgeAnswer:
    code: ClassVar[str] = "KA"
    linear: ClassVar[bool] = True
    answer_tag: ClassVar[str] = "final_answer"
    name: ClassVar[str] = "Answer"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "answers the question from the knowledge"
    violations: ClassVar[tuple[str, ...]] = VIOLATIONS
    max_words: int = 40
    max_new_tokens: int = 96

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        k = Knowledge.of(view)
        if profile != "chat":
            return (Message("user", f"{compact_state(k)}final : {one_line(view.question)}\n"),)
        return system_and_user(
            "You answer a question from what is known. Write nothing but the answer, as short as possible and at most "
            f"{self.max_words} words, in the form <final_answer>the answer</final_answer>",
            f"Question: {quote(view.question)}\n\n{chat_state(k)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        del view
        parsed = parse_answer(text, self.max_words, tag="final_answer")
        return parsed if parsed.value is None else Parsed({"answer": parsed.value})

    def fallback(self, text: str, view: View) -> dict[str, str]:
        del view
        return {"answer": raw_answer(text, tag="final_answer")}

    def effect(self, value: Mapping[str, str], view: View) -> Effect:
        del view
        return Effect(memory={"predicted": value["answer"]})


ANSWER = KnowledgeAnswer()
