"""Executors that do their job: where microworld's known ceiling and its demonstrations come from.

Invariant: the oracle acts on what the role sees. Its reader never answers from the world behind the passages, so a plan
scores only when retrieval and selection brought the evidence.

The model of a reader. It finds one stated fact and neither chains nor compares: asked for two it says "unknown". It
reads the documents in rank order and takes the first that speaks of what is asked, whatever edition that is. Documents
beat a premise in the question; a premise is used where no document speaks of the matter. Without evidence: "unknown".
The selector keeps the current editions that state what is asked, judged by query and documents alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from jade_graph.microworld import frames
from jade_graph.microworld.frames import UNKNOWN, Compare, Fact, Frame, Match, understand
from jade_graph.microworld.questions import BEST_PLAN
from jade_graph.microworld.searching import Searching
from jade_graph.microworld.world import World
from jade_graph.types import Ask, Order, Passage, Question, View
from jade_graph.workflow.plans import workflow


class OraclePolicy:
    """Writes the right action for every role: `policy(ask)` is the action's text.

    Args:
        world: the world asked about.
        questions: those it will be asked; other questions are understood from their wording.
        plan: a workflow to write for every root question, instead of the best one for its kind.
        sub_plan: the workflow of sub-questions.
        facts: how many facts the reader can take from the documents at once: 2 makes it chain and compare.
    """

    def __init__(
        self,
        world: World,
        questions: Iterable[Question] = (),
        *,
        plan: str | None = None,
        sub_plan: str = "R,AG",
        facts: int = 1,
    ) -> None:
        self.world = world
        self.plan = plan
        self.sub_plan = sub_plan
        self.facts = facts
        self.asked = {q.question: q for q in questions}
        self._editions: dict[str, tuple[str, Mapping[str, str], bool]] = {}
        for entity in world.entities.values():
            self._editions[world.by_id[entity.passage].text] = (entity.name, entity.facts, True)
            for passage, state in zip(entity.old_passages, entity.old, strict=True):
                self._editions[world.by_id[passage].text] = (entity.name, state, False)
        self._write: dict[str, Callable[[View], str]] = {
            "PL": self._planner,
            "QDS": lambda view: self._split(view, "serial"),
            "QDP": lambda view: self._split(view, "parallel"),
            "QR": self._rewriter,
            "DS": self._selector,
            "AG": self._generator,
            "AS": self._summarizer,
            **Searching(self).write,
        }

    def __call__(self, ask: Ask) -> str:
        """The action text. Raises `KeyError` for a role that microworld does not know."""
        return self._write[ask.role](ask.view)

    # --- roles ----------------------------------------------------------------------------------------------------
    def _planner(self, view: View) -> str:
        if view.level == "sub":
            wanted = self.sub_plan
        elif self.plan is not None:
            wanted = self.plan
        else:
            wanted = self.best_plan(view.question)
        legal = {str(p) for p in view.plans}
        return workflow(wanted if wanted in legal or not legal else "R,AG")

    def best_plan(self, question: str) -> str:
        """The cheapest plan that solves this root question."""
        if question in self.asked:
            return str(self.asked[question].metadata["best_plan"])
        frame = understand(question)
        kind = "2hop" if isinstance(frame, frames.Bridge) else "comparison" if isinstance(frame, Compare) else "1hop"
        return BEST_PLAN[kind]  # type: ignore[index]

    def _split(self, view: View, order: Order) -> str:
        frame = self.frame(view.question)
        parts = frames.sub_questions(frame, order, view.question) if frame else (f"So {view.question}",)
        return "".join(f"<q{i}>{part}</q{i}>" for i, part in enumerate(parts, 1))

    def _rewriter(self, view: View) -> str:
        frame = self.frame(view.question)
        return f"<query>{frames.query(frame) if frame else 'unknown'}</query>"

    def _selector(self, view: View) -> str:
        documents = view.memory.get("documents") or ()
        chosen = self.select(self.frame(view.question), documents)
        return f"<id>{','.join(f'Document{i}' for i in chosen)}</id>"

    def _generator(self, view: View) -> str:
        premise = self.asked[view.question].metadata["premise"] if view.question in self.asked else ""
        return f"<answer>{self.read(self.frame(view.question), view.evidence, str(premise))}</answer>"

    def _summarizer(self, view: View) -> str:
        frame = self.frame(view.question)
        answers = [answer for _, answer in view.children]
        return f"<answer>{frames.combine(frame, answers) if frame else (answers or [UNKNOWN])[-1]}</answer>"

    # --- the models -----------------------------------------------------------------------------------------------
    def frame(self, question: str) -> Frame | None:
        """What a question means; None for one that microworld cannot ask."""
        return understand(question)

    def read(self, frame: Frame | None, documents: Sequence[Passage], premise: str = "") -> str:
        """What the reader answers from these documents."""
        if isinstance(frame, Fact):
            stated = (state.get(frame.relation) for name, state, _ in self._stated(documents) if name == frame.entity)
            return next((value for value in stated if value), premise or UNKNOWN)
        if isinstance(frame, Match):
            fitting = (name for name, state, _ in self._stated(documents) if _meets(state, frame))
            return next(fitting, UNKNOWN)
        if frame is None or self.facts < 2:
            return UNKNOWN
        if isinstance(frame, Compare):
            return frames.combine(frame, [self.read(Fact(x, frame.relation), documents) for x in (frame.a, frame.b)])
        return self.read(Fact(self.read(Fact(frame.entity, frame.first), documents), frame.second), documents)

    def select(self, frame: Frame | None, documents: Sequence[Passage]) -> list[int]:
        """Indices of the documents that state, in their current edition, what is asked."""
        if frame is None:
            return []
        wanted = set(frames.entities_of(frame, self.world))
        chosen: list[int] = []
        for i, document in enumerate(documents):
            name, state, current = self.states(document)
            if isinstance(frame, Match) and len(frame.constraints) == 1:
                if current and _meets(state, frame):
                    chosen.append(i)
            elif current and name in wanted:
                chosen.append(i)
        return chosen

    def states(self, document: Passage) -> tuple[str, Mapping[str, str], bool]:
        """A passage's entity, what it says of it, and whether it is the current edition; empty for a foreign one."""
        return self._editions.get(document.text, ("", {}, False))

    def _stated(self, documents: Sequence[Passage]) -> Iterable[tuple[str, Mapping[str, str], bool]]:
        return (self._editions[d.text] for d in documents if d.text in self._editions)


def _meets(state: Mapping[str, str], frame: Match) -> bool:
    return all(state.get(relation) == value for relation, value in frame.constraints)
