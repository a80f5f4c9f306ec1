"""The loop of M-ASK: plan, answer, then turns of search, summary, update and answer.

Invariant: every turn ends with a predicted answer, so that the run can be answered at any turn's end; the plan's own
first answer is never lost without a later one in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import END, Edge, View
from jade_nodes.m_ask.knowledge import Knowledge


@dataclass(frozen=True)
class KnowledgeLoop:
    """`first_answer`: let the Answer role answer from the plan before the first search; False: the plan's own stands.

    The most turns are `limits.rounds` - 1: the first round is the plan's.
    """

    name: ClassVar[str] = "m-ask"
    parts: ClassVar[tuple[str, ...]] = ("KP", "KA", "KS", "R", "KE", "KU")
    first_answer: bool = True

    @property
    def edges(self) -> tuple[Edge, ...]:
        planned = (("KP", "KA"),) if self.first_answer else ()
        return (*planned, ("KS", "R"), ("KS", END), ("R", "KE"), ("KE", "KU"), ("KU", "KA"))

    @property
    def turns(self) -> tuple[Edge, ...]:
        return (("KA", "KS"),) if self.first_answer else (("KP", "KS"), ("KA", "KS"))

    def after(self, code: str, view: View) -> str:
        if code == "KP":
            return "KA" if self.first_answer else "KS"
        if code == "KS":
            return END if view.memory.get("ended") else "R"
        return {"R": "KE", "KE": "KU", "KU": "KA", "KA": "KS"}[code]

    def answer(self, view: View) -> str:
        return Knowledge.of(view).predicted


LOOP = KnowledgeLoop()
PLANNED = KnowledgeLoop(first_answer=False)
