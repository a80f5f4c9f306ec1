"""The knowledge state K: steps (sub-question, sub-answer), the predicted answer, and the queries asked so far.

Invariant: the working memory holds plain values; `Knowledge.of` reads any memory, also one that a checkpoint brought
back, and every step has a text on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

from jade_graph.types import View
from jade_nodes.answering import UNKNOWN
from jade_nodes.prompting import one_line

NOTHING = "No useful information"
"""What the Summary role writes where the passages say nothing of what was searched."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """`steps` are numbered from 1 in prompts and updates; `asked` are past queries, oldest first."""

    steps: tuple[tuple[str, str], ...] = ()
    predicted: str = UNKNOWN
    asked: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: View) -> Knowledge:
        memory = view.memory
        steps = tuple((str(q), str(a)) for q, a in memory.get("steps") or ())
        return cls(steps, str(memory.get("predicted") or UNKNOWN), tuple(map(str, memory.get("asked") or ())))


def compact_state(k: Knowledge) -> str:
    """A line per step, then the predicted answer."""
    steps = "".join(f"step {i} : {one_line(q)} = {one_line(a)}\n" for i, (q, a) in enumerate(k.steps, 1))
    return f"{steps}predicted : {one_line(k.predicted)}\n"


def chat_state(k: Knowledge) -> str:
    lines = [f"t{i}. {one_line(q)} -> {one_line(a)}" for i, (q, a) in enumerate(k.steps, 1)] or ["nothing yet"]
    return "\n".join(["Knowledge:", *lines, f"Predicted answer: {one_line(k.predicted)}"])


def query_of(view: View) -> str:
    """What was searched in this turn."""
    queries = view.memory.get("queries") or ()
    return str(queries[0]) if queries else view.question


def evidence_of(view: View) -> str:
    return str(view.memory.get("evidence") or NOTHING)
