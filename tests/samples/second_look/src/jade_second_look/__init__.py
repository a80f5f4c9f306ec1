"""A loop that looks again, by the name of what it found, while its reader knows nothing; and a reward for proof."""

from __future__ import annotations

from dataclasses import dataclass

from jade_graph import Preset, Question, Run
from jade_graph.types import END, Effect, Message, Parsed, View
from jade_graph.workflow import tags


@dataclass(frozen=True)
class Reader:
    code = "RD"
    name = "Reader"
    kind = "executor"
    description = "answers from the passages, or says unknown"
    violations = ("NO_TAG",)
    max_new_tokens: int = 32

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return (Message("user", "\n".join([*map(str, view.evidence), f"read : {view.question}\n"])),)

    def parse(self, text: str, view: View) -> Parsed:
        texts = [t for t in tags.find(text, "answer").texts if t]
        return Parsed({"answer": texts[0]}) if texts else Parsed(None, "NO_TAG")

    def fallback(self, text: str, view: View) -> dict[str, str]:
        return {"answer": "unknown"}

    def effect(self, value: dict[str, str], view: View) -> Effect:
        further = " ".join([view.question, *(p.title for p in view.evidence[:1])])
        return Effect(memory={"draft": value["answer"], "queries": (further,)})


@dataclass(frozen=True)
class SecondLook:
    name: str = "second-look"
    parts: tuple[str, ...] = ("R", "RD")
    edges: tuple[tuple[str, str], ...] = (("R", "RD"), ("RD", END))
    turns: tuple[tuple[str, str], ...] = (("RD", "R"),)

    def after(self, code: str, view: View) -> str:
        return "RD" if code == "R" else "R" if self.answer(view) == "unknown" else END

    def answer(self, view: View) -> str:
        return str(view.memory.get("draft", ""))


READER, LOOP = Reader(), SecondLook()
PRESET = Preset("second-look", "Read; while nothing is known, look again", loop="second-look", limits={"rounds": 3})


def grounded(run: Run, question: Question) -> float:
    """1 where the answer stands in a passage that the run retrieved."""
    return float(bool(run.answer) and any(run.answer in p.text for p in run.documents))
