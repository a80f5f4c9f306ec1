"""Demonstrations out of anybody's questions: what each role sees over a real corpus, and what is right there.

Invariant: every prompt comes from a run of the method's own graph over the corpus's own retrieval, distractors and all;
its action follows from the data set (gold answers, decompositions, supporting passages) and from what the role sees: an
answer that no passage states is taught as "unknown". Every action is legal by its role's own parser. The same
arguments give the same demonstrations.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import DataError
from jade_graph.microworld.shown import Shown
from jade_graph.scoring.metrics import normalize_answer
from jade_graph.types import Ask, Limits, Passage, Question, Retriever, SubQuestion, View
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.plans import workflow
from jade_graph.workflow.references import references, resolve_references
from jade_training.supervised.wording import asked

UNKNOWN = "unknown"
SERIAL, PARALLEL, LOOK_UP = "QDS", "QDP", "R,AG"
_WORDS = 40  # an answer of the roles
_STOP = frozenset(
    "a an the of in on at to for by with from and or is are was were be been do does did has have had who whom whose "  # noqa: SIM905
    "what which when where why how many much that this these those it its he she his her they their there".split()
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question with what is right for each of its parts: sub-questions refer to earlier answers as `#1`."""

    question: Question
    parts: tuple[SubQuestion, ...]

    @property
    def plan(self) -> str:
        """The workflow that the decomposition asks for."""
        if len(self.parts) < 2:
            return LOOK_UP
        return SERIAL if any(references(part.question) for part in self.parts) else PARALLEL


def lesson(question: Question, width: int = 4) -> Lesson | None:
    """A question as it can be taught; None for one whose decomposition cannot be written, or has no answer."""
    if not question.answers or len(question.answers[0].split()) > _WORDS:
        return None
    parts: list[SubQuestion] = []
    for part in question.decomposition:
        text = " ".join(asked(part.question).split())
        for i, earlier in enumerate(parts, 1):
            text = _referring(text, earlier.answer, i)
        if not part.answer.strip() or not text or len(part.answer.split()) > _WORDS:
            return None
        parts.append(replace(part, question=text))
    distinct = len({p.question.casefold() for p in parts}) == len(parts)
    alone = all(p.question.casefold() != question.question.casefold() for p in parts)
    return Lesson(question, tuple(parts)) if len(parts) <= width and distinct and (alone or len(parts) < 2) else None


def single(lessons: Iterable[Lesson]) -> list[Lesson]:
    """The parts of decomposed questions as questions of their own, with the answers that they refer to put in."""
    out: dict[str, Lesson] = {}
    for taught in lessons:
        answers = [part.answer for part in taught.parts]
        for i, part in enumerate(taught.parts, 1):
            text = resolve_references(part.question, answers)
            about = Question(
                f"{taught.question.id}.{i}", text, (part.answer,), type="single", hops=1, supporting=part.supporting
            )
            out.setdefault(text.casefold(), Lesson(about, ()))
    return list(out.values())


def _referring(text: str, answer: str, number: int) -> str:
    """The question with an earlier answer, where it is named, written as a reference to it."""
    if not answer.strip() or len(answer) < 3:
        return text
    return re.sub(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", f"#{number}", text, flags=re.IGNORECASE)


class Teacher:
    """A policy: what is right for a role, by what the data set knows and what the role sees.

    The run goes on with what leads on: another plan now and then, so that every role is met, and the gold answer also
    where the passages do not state it. `right` has, by place, what is taught there instead.
    """

    def __init__(self, lessons: Sequence[Lesson], *, seed: int = 0) -> None:
        self._lessons = {each.question.id: each for each in lessons}
        self._seed = seed
        self.right: dict[tuple[str, str, str, int], str] = {}
        self.seen: dict[tuple[str, str, str, int], View] = {}
        self._acts: Mapping[str, Callable[[Lesson, Ask, random.Random], tuple[str, str]]] = {
            "PL": self._plan,
            "QDS": self._split,
            "QDP": self._split,
            "QR": self._rewrite,
            "DS": self._select,
            "AG": self._answer,
            "AS": self._summary,
        }

    def __call__(self, ask: Ask) -> str:
        """The action. Raises `DataError` ORACLE_QUESTION, ORACLE_ROLE."""
        known = self._lessons.get(ask.question_id)
        if known is None:
            raise DataError(f"the teacher does not know the question {ask.question_id!r}.", code="ORACLE_QUESTION")
        if ask.role not in self._acts:
            raise DataError(
                f"the teacher has no action for the role {ask.role!r}.", code="ORACLE_ROLE", known=self._acts
            )
        place = (ask.question_id, ask.trace_node, ask.role, ask.view.counters.rounds)
        done, right = self._acts[ask.role](known, ask, random.Random(f"teacher {self._seed} {place}"))
        self.right[place], self.seen[place] = right, ask.view
        return done

    def _part(self, known: Lesson, ask: Ask) -> SubQuestion | None:
        index = int(ask.trace_node.rpartition(".")[2]) - 1 if ask.view.level == "sub" else -1
        return known.parts[index] if 0 <= index < len(known.parts) else None

    def _plan(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        right = known.plan if ask.view.level == "root" else LOOK_UP
        # Fixed graphs rewrite and select for whole questions of several steps too: those roles are met there as well.
        others = ["QR,R,AG", "R,DS,AG", "QR,R,DS,AG"] + ([] if right == LOOK_UP else [LOOK_UP])
        done = rng.choice(others) if rng.random() < (0.5 if right == LOOK_UP else 0.35) else right
        return workflow(done), workflow(right)

    def _split(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        del ask, rng
        text = "".join(f"<q{i}>{part.question}</q{i}>" for i, part in enumerate(known.parts, 1))
        return text, text

    def _rewrite(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        del known, rng
        text = f"<query>{keywords(ask.view.question)}</query>"
        return text, text

    def _select(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        del rng
        golds, support = self._golds(known, ask)
        documents = ask.view.memory.get("documents") or ()
        kept = [i for i, d in enumerate(documents) if d.id in support or (not support and states(d, golds))]
        text = "<id>" + ",".join(f"Document{i}" for i in kept) + "</id>"
        return text, text

    def _golds(self, known: Lesson, ask: Ask) -> tuple[Sequence[str], frozenset[str]]:
        part = self._part(known, ask)
        if part is not None:
            return (part.answer,), frozenset(part.supporting)
        return known.question.answers, frozenset(known.question.supporting)

    def _answer(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        del rng
        golds, support = self._golds(known, ask)
        gold = f"<answer>{golds[0]}</answer>"
        evidence = ask.view.evidence
        whole = ask.view.level == "root" and len(known.parts) > 1
        # A question of several steps is answered where all that supports it is there, a step where its passage is.
        enough = support <= {d.id for d in evidence} if whole else any(d.id in support for d in evidence)
        found = (bool(support) and enough) or (not whole and any(states(d, golds) for d in evidence))
        return gold, gold if found else f"<answer>{UNKNOWN}</answer>"

    def _summary(self, known: Lesson, ask: Ask, rng: random.Random) -> tuple[str, str]:
        del ask, rng
        text = f"<answer>{known.question.answers[0]}</answer>"
        return text, text


def states(passage: Passage, golds: Sequence[str]) -> bool:
    """Whether the passage has one of the answers in its words."""
    text = f" {normalize_answer(str(passage))} "
    return any(gold and f" {gold} " in text for gold in map(normalize_answer, golds))


def keywords(question: str) -> str:
    """The question as words to search for: what it names and asks for, without what holds a sentence together."""
    words = re.findall(r"[\w'’.-]+", question)
    kept = [word.strip(".") for word in words if word.casefold() not in _STOP]
    text = " ".join(word for word in kept if word)
    return text if text and text.casefold() != question.casefold() else f"{text or question} facts"


async def teach(
    lessons: Sequence[Lesson],
    retriever: Retriever,
    *,
    preset: str = "jade",
    profile: str = "brief",
    k: int = 5,
    unknown: float = 0.15,
    seed: int = 0,
    concurrency: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Shown], Counter[str]]:
    """Demonstrations of every role that the lessons meet, lesson by lesson, and how many were left out and why.

    A question whose run fails is named among what was left out.

    Args:
        unknown: the largest share of "unknown" among the answers that are taught.

    Raises:
        DataError: ORACLE_RUN where every run fails.
    """
    teacher = Teacher(lessons, seed=seed)
    limits = Limits(depth=1, tokens=10**9, deadline_s=600.0)
    engine = Engine(ScriptedBackbone(teacher, profile=profile), preset=preset, retriever=retriever, limits=limits, k=k)
    by_question: dict[str, list[Shown]] = {}
    left: Counter[str] = Counter()
    async for run in engine.arun_many([each.question for each in lessons], concurrency=concurrency, seed=seed):
        if run.status != "answered":
            left[f"the run of question {run.question_id!r} failed ({run.error})"] += 1
            continue
        shown = []
        for t in run.transitions:
            if t.finish_reason == "tool":
                continue
            place = (t.question_id, t.trace_node, t.role, int(t.counters_before["rounds"]))
            right, view = teacher.right[place], teacher.seen[place]
            violation = engine.roles[t.role].parse(right, view).violation
            if violation is None:
                shown.append(Shown(t.question_id, t.role, t.prompt_messages, right))
            else:
                left[f"{t.role} {violation}"] += 1
        by_question[run.question_id] = shown
        if progress is not None:
            progress(len(by_question), len(lessons))
    if lessons and not by_question:
        raise DataError(f"no run of the teacher has an answer: {next(iter(left))}.", code="ORACLE_RUN")
    found = [shown for each in lessons for shown in by_question.get(each.question.id, ())]
    left["the same again"] += len(found) - len(set(found))
    return _fewer_unknown(list(dict.fromkeys(found)), unknown, left), +left


async def teach_over(
    lessons: Sequence[Lesson],
    retriever: Retriever,
    ks: Sequence[int],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> tuple[list[Shown], Counter[str]]:
    """`teach` over more and over fewer passages, each with a seed of its own; what comes again is left out."""
    found: list[Shown] = []
    left: Counter[str] = Counter()
    for i, k in enumerate(ks):

        def ahead(done: int, of: int, i: int = i) -> None:
            if progress is not None:
                progress(i * of + done, len(ks) * of)

        more, why = await teach(lessons, retriever, k=k, seed=seed + i, progress=ahead, **options)
        found += more
        left += why
    once = list(dict.fromkeys(found))
    left["the same again"] += len(found) - len(once)
    return once, +left


def _fewer_unknown(found: Sequence[Shown], share: float, left: Counter[str]) -> list[Shown]:
    """Answers that are taught as unknown, no more than their share of all; the first of them stay."""
    blank = f"<answer>{UNKNOWN}</answer>"
    known = sum(s.role == "AG" and s.action != blank for s in found)
    room = int(known * share / (1.0 - share)) if share < 1.0 else len(found)
    out = []
    for shown in found:
        if shown.role == "AG" and shown.action == blank:
            room -= 1
            if room < 0:
                left["AG unknown, beyond its share"] += 1
                continue
        out.append(shown)
    return out


__all__ = ["Lesson", "Teacher", "keywords", "lesson", "single", "states", "teach", "teach_over"]
