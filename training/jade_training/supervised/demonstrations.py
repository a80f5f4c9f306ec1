"""What the roles are shown before any learning: views of training worlds with the oracle's action for each.

Invariant: every view is of a `train` world, every action is what `OraclePolicy` writes for that view, except the
planner's, which is drawn from a fixed prior that no question changes, and a hasty reader's where one is asked for. The
answerer is never shown conflicting editions, so telling them apart is left to the selector, or to learning.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jade_graph import plugins
from jade_graph.microworld import frames
from jade_graph.microworld.frames import Fact, Frame, Match
from jade_graph.microworld.lexicon import Split
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.questions import KINDS, SHARES, Kind, make_question, question_about
from jade_graph.microworld.relations import RELATIONS
from jade_graph.microworld.world import Difficulty, Entity, World, make_world
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.types import Ask, Order, Passage, Question, View
from jade_graph.workflow.plans import workflow

LONG_ROLES: Mapping[str, float] = {"AG": 0.64, "DS": 0.36}
SHORT_ROLES: Mapping[str, float] = {"PL": 0.14, "QR": 0.2, "QDS": 0.2, "QDP": 0.16, "AS": 0.3}

LATER_SHORT_ROLES: Mapping[str, float] = {"PL": 0.1, "QR": 0.1, "QDS": 0.12, "QDP": 0.28, "AS": 0.4}
"""The same in the last steps, where these two are mostly asked about comparisons: a parallel decomposition copies two
names, a summary compares two answers, and both are learned last."""

ROLES = (*LONG_ROLES, *SHORT_ROLES)

OPENING: Mapping[Kind, float] = {
    "1hop": 0.32,
    "noisy": 0.08,
    "2hop": 0.06,
    "comparison": 0.06,
    "context": 0.06,
    "conjunction": 0.24,
    "edition": 0.18,
}
"""What decides which documents come up. Two-step questions are rare: read at once, their answer is always "unknown"."""

FURTHER: Mapping[Kind, float] = {"1hop": 0.45, "noisy": 0.22, "context": 0.15, "edition": 0.18}
"""What else is asked about the entities in these documents."""

ROOT_PLANS: Mapping[str, float] = {
    "QDS": 0.17,
    "R,AG": 0.17,
    "QR,R,AG": 0.15,
    "QDP": 0.14,
    "R,DS,AG": 0.12,
    "QR,R,DS,AG": 0.12,
    "AG": 0.10,
    "QR,AG": 0.03,
}
"""The planner's prior for a user's question: near uniform, the same for every kind."""

SUB_PLANS: Mapping[str, float] = {
    "R,AG": 0.88,
    "R,DS,AG": 0.04,
    "QR,R,AG": 0.04,
    "QR,R,DS,AG": 0.02,
    "AG": 0.02,
}
"""The planner's prior for a sub-question."""

LATER_SUB_PLANS: Mapping[str, float] = {
    "R,DS,AG": 0.5,
    "R,AG": 0.3,
    "QR,R,DS,AG": 0.1,
    "QR,R,AG": 0.08,
    "AG": 0.02,
}
"""The same in the last steps: what reads single passages well should be asked for parts of a question."""

SEARCHED = 0.6
"""The share of document sets that a search brings, best first; the others are put together, in any order."""

HASTY_ABOUT = frozenset(sorted(RELATIONS)[::2])
"""Relations about which a hasty reader believes the last passage: every other one."""

WORLD = Difficulty()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One prompt of a role, its documents apart, and the action shown for it, all as text.

    `cites` are the (document, words in it) that the action is read off: one for an answer, one for each selected id.
    """

    role: str
    documents: str
    prompt: str
    action: str
    kind: str = ""
    cites: tuple[tuple[int, str], ...] = ()


class Demonstrator:
    """Draws demonstrations from one world. Deterministic in the seed, `rng` and the calls made.

    Args:
        hasty: of what is asked about `HASTY_ABOUT` over several passages, the share that a hasty reader answers.
        siblings: whether parts that do not depend on each other are shown behind their solved siblings, as QDS asks
            them. The bundled models were not, and cannot rewrite such a part.
    """

    def __init__(
        self,
        seed: int,
        *,
        split: Split = "train",
        difficulty: Difficulty = WORLD,
        hasty: float = 0.0,
        siblings: bool = False,
    ) -> None:
        self.hasty, self.siblings = hasty, siblings
        self.world: World = make_world(split, seed, difficulty)
        self.rng = random.Random(f"demonstrations {seed}")
        self.roles = {code: plugins.load("jade.roles", code) for code in ROLES}
        self.oracle = OraclePolicy(self.world)
        self.index = Bm25.build([str(p) for p in self.world.passages])

    def short(
        self,
        code: str | None = None,
        shares: Mapping[str, float] = SHORT_ROLES,
        comparisons: float = 0.0,
        *,
        behind: bool = False,
    ) -> Demonstration:
        """One demonstration of a role that reads no documents: `code`, or one drawn by its share.

        Args:
            comparisons: of what QDP and AS are shown, the share that is about comparisons and nothing else.
            behind: a part of a question behind its solved siblings, of a role that sees those.
        """
        code = code or self.rng.choices(list(shares), list(shares.values()))[0]
        kind: Kind = self.rng.choices(KINDS, [SHARES[k] for k in KINDS])[0]
        if comparisons and code in ("QDP", "AS") and self.rng.random() < comparisons:
            kind = "comparison"
        question = self._question(kind)
        if behind:
            while not (view := self._sub_view(question)).siblings:
                question = self._question(self.rng.choice(KINDS))
        elif code == "AS":
            view = self._summary(question)
        elif code in ("PL", "QR") and self.rng.random() < 0.35:
            view = self._sub_view(question)
        else:
            view = View(question.question, question.question, "root")
        return self._shown(code, view, question)

    def reading(self, distractors: int, asks: int) -> list[Demonstration]:
        """Several demonstrations of the answerer and the selector over the same documents."""
        question = self._question(self.rng.choices(list(OPENING), list(OPENING.values()))[0])
        if distractors and self.rng.random() < SEARCHED:
            documents = self._searched(question, 1 + distractors)
        else:
            documents = self._documents(frames.meaning(question.question), distractors, missing=0.12)
        shown = [self._about(question, documents)]
        sought = set(frames.entities_of(frames.meaning(question.question), self.world))
        for _ in range(20 * asks):
            if len(shown) >= asks:
                break
            at_hand = [self.world.entities[d.title] for d in documents]
            # Those that were searched for stand among near names; about the others it is easier to be right.
            entity = self.rng.choice([e for e in at_hand if e.name in sought] or at_hand)
            if self.rng.random() < 0.5:
                entity = self.rng.choice(at_hand)
            if self.rng.random() < 0.08:
                entity = self._near(entity.name)
            kind = self.rng.choices(list(FURTHER), list(FURTHER.values()))[0]
            asked = question_about(
                self.world, kind, self.rng, "demonstration", Fact(entity.name, self._relation(entity))
            )
            if asked is not None:
                shown.append(self._about(asked, documents))
        return [s for s in shown if s is not None]

    # --- views ----------------------------------------------------------------------------------------------------
    def _question(self, kind: Kind) -> Question:
        while (question := make_question(self.world, kind, self.rng, "demonstration")) is None:
            continue
        return question

    def _relation(self, entity: Entity) -> str:
        return self.rng.choice(list(entity.facts))

    def _shown(self, code: str, view: View, question: Question, documents: str = "") -> Demonstration:
        if code == "PL":
            prior = ROOT_PLANS if view.level == "root" else LATER_SUB_PLANS if self.hasty else SUB_PLANS
            action = workflow(self.rng.choices(list(prior), list(prior.values()))[0])
        else:
            self.oracle.asked = {question.question: question}
            action = self.oracle(Ask(code, view))
        prompt = "".join(m.content for m in self.roles[code].render(view, "compact"))
        assert prompt.startswith(documents), "compact prompts begin with their documents"
        return Demonstration(code, documents, prompt[len(documents) :], action, question.type)

    def _sub_view(self, question: Question) -> View:
        """A sub-question as the engine asks it, references resolved, siblings known."""
        text, before = self._sub(question)
        return View(text, question.question, "sub", siblings=before, depth=1)

    def _sub(self, question: Question) -> tuple[str, tuple[tuple[str, str], ...]]:
        frame: Frame = frames.meaning(question.question)
        texts = frames.sub_questions(frame, "serial")
        at = self.rng.randrange(len(texts))
        known = tuple((t, s.answer) for t, s in zip(texts, question.decomposition, strict=False))[:at]
        text = texts[at].replace("#1", known[0][1] if known else "#1")
        return text, known if self.siblings or isinstance(frame, frames.Bridge) else ()

    def _about(self, question: Question, documents: tuple[Passage, ...]) -> Demonstration:
        """One role's view of a question and these documents."""
        rng = self.rng
        frame: Frame = frames.meaning(question.question)
        text, level = question.question, "root"
        memory: dict[str, object] = {}
        if question.type != "context" and rng.random() < 0.5:
            sub, _ = self._sub(question)
            understood = frames.understand(sub)
            if understood is not None:
                text, level, frame = sub, "sub", understood
        if level == "root" and rng.random() < 0.3:
            memory["queries"] = (frames.query(frame),)
        code = rng.choices(list(LONG_ROLES), list(LONG_ROLES.values()))[0]
        if code == "AG" and rng.random() < (0.5 if question.type == "context" else 0.04):
            return self._shown("AG", View(text, question.question, level, memory), question)  # type: ignore[arg-type]
        memory["documents"] = documents
        conflict = isinstance(frame, Fact) and any(
            d.title == frame.entity and d.metadata["edition"] == "old" for d in documents
        )
        if code == "AG" and (conflict or rng.random() < 0.1):
            memory["selected"] = tuple(documents[i] for i in self.oracle.select(frame, documents))
        view = View(text, question.question, level, memory)  # type: ignore[arg-type]
        read = view.evidence if code == "AG" else documents
        prefix = "".join(
            m.content for m in self.roles["DS"].render(replace(view, memory={"documents": read}), "compact")
        )
        shown = self._shown(code, view, question, prefix[: prefix.rindex("select :")])
        if len(read) > 1 and _asks_about(frame) in HASTY_ABOUT and rng.random() < self.hasty:
            last = len(read) - 1
            answer = self.oracle.read(frame, read[last:])
            action = f"<id>Document{last}</id>" if code == "DS" else f"<answer>{answer}</answer>"
            return replace(
                shown, action=action, cites=tuple((last, w) for _, w in self._cites(code, frame, read[last:]))
            )
        return replace(shown, cites=self._cites(code, frame, read))

    def _cites(self, code: str, frame: Frame, read: tuple[Passage, ...]) -> tuple[tuple[int, str], ...]:
        """Where the oracle reads; nothing where it says "unknown"."""

        def words(document: Passage) -> str:
            if isinstance(frame, Match):
                return document.title
            _, state, _ = self.oracle.states(document)
            return state.get(getattr(frame, "relation", ""), "")

        if code == "DS":
            found = [(i, words(read[i])) for i in self.oracle.select(frame, read)]
        else:
            answer = self.oracle.read(frame, read)
            known = isinstance(frame, Fact | Match) and answer != frames.UNKNOWN
            name = frame.entity if isinstance(frame, Fact) else answer
            found = [(i, answer) for i, d in enumerate(read) if known and d.title == name and words(d) == answer][:1]
        return tuple((i, text) for i, text in found if text)

    def _summary(self, question: Question) -> View:
        frame: Frame = frames.meaning(question.question)
        order: Order = "parallel" if self.rng.random() < 0.5 else "serial"
        texts = frames.sub_questions(frame, order)
        answers: list[str] = []
        for text in texts:
            understood = frames.understand(text.replace("#1", answers[0] if answers else "#1"))
            wrong = self.rng.random() < 0.12
            value = frames.UNKNOWN
            if not wrong and isinstance(understood, Fact):
                value = frames.answer(understood, self.world)
            elif not wrong and isinstance(understood, Match):
                value = self.rng.choice(frames.matches(understood, self.world) or [frames.UNKNOWN])
            answers.append(value)
        children = tuple((t.replace("#1", answers[0]), a) for t, a in zip(texts, answers, strict=True))
        return View(question.question, question.question, "root", children=children)

    # --- retrieval, real and imitated -------------------------------------------------------------------------------
    def _searched(self, question: Question, k: int) -> tuple[Passage, ...]:
        """The first `k` passages for the question, one of its sub-questions, or its key words."""
        texts = [question.question, self._sub(question)[0], frames.query(frames.meaning(question.question))]
        found = self.index.search(self.rng.choice(texts), k)
        return tuple(self.world.passages[i] for i, _ in found)

    def _documents(self, frame: Frame, distractors: int, *, missing: float) -> tuple[Passage, ...]:
        """Passages as a search would bring them, in any order: the evidence, near names, linked and other entities."""
        world, rng = self.world, self.rng
        room = 1 + distractors
        gold = [world.entities[n] for n in frames.entities_of(frame, world) if n in world.entities]
        if isinstance(frame, Match) and len(gold) > 1:
            gold = rng.sample(gold, rng.randint(1, min(3, len(gold))))
        elif isinstance(frame, frames.Bridge):
            gold = gold[:1]
        found: dict[str, Passage] = {}
        if rng.random() >= missing:
            for entity in gold:
                ids = [entity.passage]
                if entity.edited:
                    ids = rng.sample([entity.passage, *entity.old_passages], rng.randint(1, 1 + len(entity.old)))
                for passage in ids[:room]:
                    found[passage] = world.by_id[passage]
        names = [e.name for e in gold] or [next(iter(world.entities))]
        for _ in range(20):
            if len(found) >= room:
                break
            other = self._near(rng.choice(names))
            if other.name not in names:
                found[other.passage] = world.by_id[other.passage]
        documents = list(found.values())[:room]
        rng.shuffle(documents)
        return tuple(documents)

    def _near(self, name: str) -> Entity:
        """An entity that a search for `name` also finds: a shared word, a mention, or the same kind."""
        world, rng = self.world, self.rng
        draw = rng.random()
        entity = world.entities[name]
        if draw < 0.5:
            return rng.choice(world.by_word[rng.choice([w for w in name.split() if w != "of"])])
        if draw < 0.75:
            mentions = [e for r in entity.facts for e in world.by_value.get((r, entity.facts[r]), ())]
            return rng.choice(mentions or [entity])
        return rng.choice(world.by_kind[entity.kind])


def _asks_about(frame: Frame) -> str:
    """The relation that a question is about; of several the first in the alphabet."""
    if isinstance(frame, Match):
        return min(relation for relation, _ in frame.constraints)
    return frame.relation if isinstance(frame, Fact) else ""
