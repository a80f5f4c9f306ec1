"""Oracle actions for roles that search turn by turn: M-ASK's five, and the one role of Search-R1.

Invariant: as in `oracle`, an action is written from what the role sees. Evidence comes out of passages alone, an answer
out of the knowledge (or the context) alone, so that a run is right only if its searches brought what it needs.

The question is taken apart as its frame says; a conjunction, which one search finds, stays whole. A part is known once
a step that asks for it, in whatever place, says neither "unknown" nor "No useful information"; a query is asked once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jade_graph.microworld import frames
from jade_graph.microworld.frames import UNKNOWN, Bridge, Compare, Fact, Frame
from jade_graph.types import Passage, View

if TYPE_CHECKING:
    from jade_graph.microworld.oracle import OraclePolicy

NOTHING = "No useful information"


class Searching:
    """Writes the actions of searching roles on behalf of an `OraclePolicy`, by role code."""

    def __init__(self, oracle: OraclePolicy) -> None:
        self._oracle = oracle
        self.write = {
            "KP": self.plan,
            "KS": self.search,
            "KE": self.evidence,
            "KU": self.update,
            "KA": self.answer,
            "SR": self.think,
        }

    # --- M-ASK --------------------------------------------------------------------------------------------------------
    def plan(self, view: View) -> str:
        premise = self._premise(view)
        parts = [frames.canonical(p) for p in self._parts(view.question)] or [" ".join(view.question.split())]
        known = premise or UNKNOWN
        steps = "".join(f"<q{i}>{q}</q{i}><a{i}>{known}</a{i}>" for i, q in enumerate(parts, 1))
        return f"{steps}<final_answer>{known}</final_answer>"

    def search(self, view: View) -> str:
        known, asked = self._answers(view), tuple(view.memory.get("asked") or ())
        query = self._next(view.question, known, asked)
        return f"<search>{query}</search>" if query else "<end>"

    def evidence(self, view: View) -> str:
        queries = view.memory.get("queries") or (view.question,)
        found = self._read(str(queries[0]), view)
        return NOTHING if found == UNKNOWN else f"<evidence>{found}</evidence>"

    def update(self, view: View) -> str:
        """Over the first step that is not known: `search` asked for it."""
        steps: Sequence[Sequence[str]] = view.memory.get("steps") or ()
        place = next((i for i, (_, a) in enumerate(steps, 1) if a in (UNKNOWN, NOTHING)), 0)
        return f"<update>t{place}</update>" if place else f"<add>t{len(steps) + 1}</add>"

    def answer(self, view: View) -> str:
        return f"<final_answer>{self._combined(view.question, self._answers(view))}</final_answer>"

    # --- Search-R1 ----------------------------------------------------------------------------------------------------
    def think(self, view: View) -> str:
        if premise := self._premise(view):
            return f"<answer>{premise}</answer>"
        turns = [(str(query), tuple(found)) for _, query, found in view.memory.get("turns") or ()]
        if view.memory.get("queries"):
            turns.append((str(view.memory["queries"][0]), tuple(view.memory.get("documents") or ())))
        known: list[str] = []
        for part in self._parts(view.question):
            frame = _resolved(part, known)
            queries = () if frame is None else (frames.query(frame),)
            found = next((d for query, d in turns if query in queries), ())
            known.append(UNKNOWN if frame is None else self._said(frame, found))
        query = self._next(view.question, known, [q for q, _ in turns])
        if query and view.counters.rounds < view.limits.rounds:
            return f"<search>{query}</search>"
        return f"<answer>{self._combined(view.question, known)}</answer>"

    # --- the models ---------------------------------------------------------------------------------------------------
    def _premise(self, view: View) -> str:
        asked = self._oracle.asked.get(view.question)
        return str(asked.metadata["premise"]) if asked else ""

    def _parts(self, question: str) -> tuple[Frame, ...]:
        frame = self._oracle.frame(question)
        if isinstance(frame, Bridge):
            return (Fact(frame.entity, frame.first), Fact("#1", frame.second))
        if isinstance(frame, Compare):
            return (Fact(frame.a, frame.relation), Fact(frame.b, frame.relation))
        return () if frame is None else (frame,)

    def _answers(self, view: View) -> list[str]:
        """What is known of each part of the question, wherever in the knowledge it stands."""
        steps = [(str(q), str(a)) for q, a in view.memory.get("steps") or () if a not in (UNKNOWN, NOTHING)]
        parts = self._parts(view.question)
        if not parts:
            return [a for _, a in steps]
        known: list[str] = []
        for part in parts:
            asks = [frames.canonical(part)]
            if (frame := _resolved(part, known)) is not None:
                asks += [frames.query(frame), frames.canonical(frame)]
            known.append(next((a for q, a in steps if q in asks), UNKNOWN))
        return known

    def _next(self, question: str, known: Sequence[str], asked: Iterable[str]) -> str:
        """The query of the first part that is not known and can be asked; empty where there is none."""
        past = set(asked)
        for part, answer in zip(self._parts(question), known, strict=False):
            frame = _resolved(part, known) if answer == UNKNOWN else None
            if frame is not None and (query := frames.query(frame)) not in past:
                return query
        return ""

    def _read(self, query: str, view: View) -> str:
        """What the documents say of the query; the words of the query alone say what it asks."""
        documents = view.memory.get("documents") or ()
        for frame in self._meanings(query, view):
            if (said := self._said(frame, documents)) != UNKNOWN:
                return said
        return UNKNOWN

    def _meanings(self, query: str, view: View) -> Iterable[Frame]:
        """Frames that this query asks for: of the question's parts, with any name in the documents for a reference."""
        for part in self._parts(view.root_question):
            names = [(name,) for name, _, _ in map(self._oracle.states, view.memory.get("documents") or ()) if name]
            for known in ((), *names):
                frame = _resolved(part, known)
                if frame is not None and frames.query(frame) == query:
                    yield frame

    def _said(self, frame: Frame, documents: Sequence[Passage]) -> str:
        current = [documents[i] for i in self._oracle.select(frame, documents)]
        return self._oracle.read(frame, current)

    def _combined(self, question: str, known: Sequence[str]) -> str:
        frame = self._oracle.frame(question)
        parts = self._parts(question)
        answers = list(known[: len(parts)])
        if frame is None or not answers:
            return (list(known) or [UNKNOWN])[-1]
        if isinstance(frame, Bridge | Compare):
            return frames.combine(frame, answers) if len(answers) == len(parts) else UNKNOWN
        return answers[0]


def _resolved(part: Frame, known: Sequence[str]) -> Frame | None:
    """The part with the answer of the first in the place of #1; None where that is not known."""
    if not isinstance(part, Fact) or part.entity != "#1":
        return part
    first = known[0] if known else UNKNOWN
    return None if first == UNKNOWN else Fact(first, part.relation)
