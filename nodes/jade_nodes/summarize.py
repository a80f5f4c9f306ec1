"""AS, the answer summarizer: makes the answer of a decomposed question out of its sub-answers.

Invariant: always an answer, of at most `max_words` words when the action was legal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Message, RoleKind, View
from jade_nodes.answering import Answering
from jade_nodes.prompting import compact_pairs, one_line, quote, solved_pairs, system_and_user


@dataclass(frozen=True)
class AnswerSummarizer(Answering):
    code: ClassVar[str] = "AS"
    name: ClassVar[str] = "Answer Summarizer"
    kind: ClassVar[RoleKind] = "summarizer"
    description: ClassVar[str] = "combines the answers of sub-questions into the final one"

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile != "chat":
            return (Message("user", f"{compact_pairs(view.children)}summary : {one_line(view.question)}\n"),)
        return system_and_user(
            f"You answer a question from the answers to its sub-questions. {self.form}",
            f"Question: {quote(view.question)}\n\nSub-questions and their answers:\n{solved_pairs(view.children)}",
        )


SUMMARIZER = AnswerSummarizer()
