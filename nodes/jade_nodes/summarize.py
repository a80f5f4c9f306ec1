"""AS, the answer summarizer: makes the answer of a decomposed question out of its sub-answers.

Invariant: always an answer, of at most `max_words` words when the action was legal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Effect, Message, Parsed, RoleKind, View
from jade_nodes.answering import VIOLATIONS, parse_answer, raw_answer
from jade_nodes.prompting import compact_pairs, solved_pairs, system_and_user


@dataclass(frozen=True)
class AnswerSummarizer:
    code: ClassVar[str] = "AS"
    name: ClassVar[str] = "Answer Summarizer"
    kind: ClassVar[RoleKind] = "summarizer"
    description: ClassVar[str] = "combines the answers of sub-questions into the final one"
    violations: ClassVar[tuple[str, ...]] = VIOLATIONS
    max_words: int = 40
    max_new_tokens: int = 96

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile == "compact":
            return (Message("user", f"{compact_pairs(view.children)}summary : {view.question}\n"),)
        return system_and_user(
            "You answer a question from the answers to its sub-questions. Write nothing but the answer, as short as "
            f"possible and at most {self.max_words} words, in the form <answer>the answer</answer>",
            f"Question: {view.question}\n\nSub-questions and their answers:\n{solved_pairs(view.children)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        del view
        return parse_answer(text, self.max_words)

    def fallback(self, text: str, view: View) -> str:
        del view
        return raw_answer(text)

    def effect(self, value: str, view: View) -> Effect:
        del view
        return Effect(answer=value)


SUMMARIZER = AnswerSummarizer()
