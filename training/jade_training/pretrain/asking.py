"""What the searching roles are shown, M-ASK's five and Search-R1's one, with JADE's roles replayed beside them.

Invariant: `rows_of(step)` depends on the settings and the step alone. Worlds are of the split "train"; every action is
the oracle's for that prompt, also behind a mistake, but for a hasty reader's where one is asked for. Nobody is shown
conflicting editions of what is searched, so telling them apart is left to learning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jade_graph import plugins
from jade_graph.microworld import frames
from jade_graph.microworld.frames import Fact, Frame, Match
from jade_graph.microworld.questions import SHARES, make_questions, question_about
from jade_graph.microworld.searching import NOTHING
from jade_graph.microworld.shown import demonstrations
from jade_graph.types import Passage, Question, View
from jade_training.pretrain.batches import Row, encode
from jade_training.supervised.demonstrations import (
    FURTHER,
    HASTY_ABOUT,
    OPENING,
    SEARCHED,
    Demonstration,
    Demonstrator,
    _asks_about,
)


class EvidenceDemonstrator(Demonstrator):
    """Draws demonstrations of JADE's roles, and of the Summary role over shared documents."""

    @cached_property
    def summary(self) -> Any:
        return plugins.load("jade.roles", "KE")

    def evidence(self, distractors: int, asks: int) -> list[Demonstration]:
        """Several queries over the same documents, and what they say of each."""
        question = self._question(self.rng.choices(list(OPENING), list(OPENING.values()))[0])
        frame: Frame = frames.meaning(question.question)
        if isinstance(frame, frames.Bridge | frames.Compare):
            name = frame.entity if isinstance(frame, frames.Bridge) else frame.a
            frame = Fact(name, frame.first if isinstance(frame, frames.Bridge) else frame.relation)
        if distractors and self.rng.random() < SEARCHED:
            found = self.index.search(frames.query(frame), 1 + distractors)
            documents = tuple(self.world.passages[i] for i, _ in found)
        else:
            documents = self._documents(frame, distractors, missing=0.12)
        shown = [self._read(frame, documents)]
        at_hand = [self.world.entities[d.title] for d in documents]
        for _ in range(20 * asks):
            if len(shown) >= asks:
                break
            entity = self.rng.choice(at_hand)
            if self.rng.random() < 0.12:
                entity = self._near(entity.name)
            kind = self.rng.choices(list(FURTHER), list(FURTHER.values()))[0]
            asked = question_about(
                self.world, kind, self.rng, "demonstration", Fact(entity.name, self._relation(entity))
            )
            about: Frame | None = None if asked is None else frames.meaning(asked.question)
            if isinstance(about, Fact | Match):
                shown.append(self._read(about, documents))
        return [s for s in shown if s is not None]

    def _read(self, frame: Frame, documents: tuple[Passage, ...]) -> Demonstration | None:
        """None where editions contradict each other."""
        if isinstance(frame, Fact) and any(
            d.title == frame.entity and d.metadata["edition"] == "old" for d in documents
        ):
            return None
        said = self.oracle.read(frame, documents)
        cites = self._cites("AG", frame, documents)
        if len(documents) > 1 and _asks_about(frame) in HASTY_ABOUT and self.rng.random() < self.hasty:
            said, cites = self.oracle.read(frame, documents[-1:]), ()
        query = frames.query(frame)
        view = View(query, query, "root", {"queries": (query,), "documents": documents})
        prompt = "".join(m.content for m in self.summary.render(view, "compact"))
        at = prompt.rindex("evidence :")
        action = NOTHING if said == frames.UNKNOWN else f"<evidence>{said}</evidence>"
        return Demonstration("KE", prompt[:at], prompt[at:], action, cites=cites)


@dataclass
class AskCurriculum:
    """The rows of each step of the stage that teaches the searching roles.

    Attributes:
        steps: of the stage.
        reads, asks: sets of documents a step for the Summary role, and queries over each.
        replayed: sets of documents a step for JADE's answerer and selector, half as many demonstrations over each.
        short: demonstrations of JADE's roles that read none.
        knowing, monolithic: actions of M-ASK's other roles, and of Search-R1's, out of runs.
        straying: see `microworld.shown.demonstrations`.
        hasty: see `Demonstrator`; of the Summary role's, too.
        asked: questions of each world whose runs are shown.
        longest: tokens of a prompt that is shown.
        steps_per_world: after how many steps a new training world begins.
    """

    tokenizer: Any
    seed: int
    steps: int
    reads: int = 8
    asks: int = 12
    replayed: int = 4
    short: int = 12
    knowing: int = 56
    monolithic: int = 12
    straying: float = 0.2
    hasty: float = 0.5
    asked: int = 160
    longest: int = 460
    steps_per_world: int = 25
    _world: tuple[int, EvidenceDemonstrator, list[Demonstration], list[Demonstration]] | None = field(
        default=None, repr=False
    )

    def rows_of(self, step: int) -> list[Row]:
        rng = random.Random(f"asking {self.seed} {step}")
        _, demonstrator, knowing, monolithic = self._drawn(step // self.steps_per_world)
        demonstrator.rng = rng
        shown = [d for _ in range(self.reads) for d in demonstrator.evidence(rng.randint(1, 4), self.asks)]
        for _ in range(self.replayed):
            shown += demonstrator.reading(rng.randint(2, 4), self.asks // 2)
        shown += [demonstrator.short() for _ in range(self.short)]
        shown += rng.sample(knowing, min(self.knowing, len(knowing)))
        shown += rng.sample(monolithic, min(self.monolithic, len(monolithic)))
        return encode(self.tokenizer, shown)

    def _drawn(self, index: int) -> tuple[int, EvidenceDemonstrator, list[Demonstration], list[Demonstration]]:
        if self._world is None or self._world[0] != index:
            demonstrator = EvidenceDemonstrator(self.seed * 100_003 + 50_000 + index, hasty=self.hasty)
            runs = {preset: self.of_runs(demonstrator, preset, index) for preset in ("m-ask", "search-r1")}
            # Evidence is shown over shared documents, which is cheaper.
            knowing = [d for d in runs["m-ask"] if d.role != "KE"]
            self._world = index, demonstrator, knowing, runs["search-r1"]
        return self._world

    def of_runs(self, demonstrator: EvidenceDemonstrator, preset: str, index: int) -> list[Demonstration]:
        questions: tuple[Question, ...] = make_questions(demonstrator.world, self.asked, seed=index, kinds=SHARES)
        shown = demonstrations(demonstrator.world, questions, preset=preset, straying=self.straying, seed=index)
        found = [Demonstration(s.role, "", s.messages[0].content, s.action) for s in shown]
        lengths = [len(ids) for ids in self.tokenizer([d.prompt for d in found], add_special_tokens=False)["input_ids"]]
        return [d for d, n in zip(found, lengths, strict=True) if n <= self.longest]
