"""What a microworld question means, apart from its words.

Invariant: `understand(canonical(frame)) == frame`. `answer` depends on the frame and the world alone, so a question's
gold answer does not depend on how it was worded.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from jade_graph.microworld.lexicon import EntityKind
from jade_graph.microworld.relations import RELATIONS
from jade_graph.microworld.world import World
from jade_graph.types import Order

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fact:
    """One relation of one named entity."""

    entity: str
    relation: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """A relation (`second`) of an entity that is only named as another's (`first` of `entity`)."""

    entity: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Two entities by one relation: which is `first`, the `least` value, or whether it is the `same`."""

    mode: Literal["first", "least", "same"]
    relation: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Match:
    """The entity of a kind of which every (relation, value) holds: one constraint leaves several, two leave one."""

    kind: EntityKind
    constraints: tuple[tuple[str, str], ...]


Frame = Fact | Bridge | Compare | Match

# Wordings of comparisons; the first of each is canonical.
COMPARE_WORDINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("first", "release_year"): (
        "Which film came out first, {a} or {b}?", "Which is the older film, {a} or {b}?",
        "Which of the films {a} and {b} was released earlier?",
    ),
    ("first", "publication_year"): (
        "Which book was published first, {a} or {b}?", "Which is the older book, {a} or {b}?",
        "Which of the books {a} and {b} was published earlier?",
    ),
    ("first", "birth_year"): (
        "Who was born first, {a} or {b}?", "Who is older, {a} or {b}?", "Which of {a} and {b} was born earlier?",
    ),
    ("first", "founding_year"): (
        "Which city was founded first, {a} or {b}?", "Which is the older city, {a} or {b}?",
        "Which of the cities {a} and {b} was founded earlier?",
    ),
    ("least", "release_year"): (
        "In which year did the older of the films {a} and {b} come out?",
        "When was the first of the films {a} and {b} released?",
    ),
    ("least", "publication_year"): (
        "In which year did the older of the books {a} and {b} come out?",
        "When was the first of the books {a} and {b} published?",
    ),
    ("least", "birth_year"): (
        "In which year was the older of {a} and {b} born?", "When was the first of {a} and {b} born?",
    ),
    ("least", "founding_year"): (
        "In which year did the older of the cities {a} and {b} begin?",
        "When was the first of the cities {a} and {b} founded?",
    ),
    ("same", "country"): ("Are {a} and {b} in the same country?", "Do {a} and {b} lie in the same country?"),
    ("same", "job"): ("Do {a} and {b} have the same profession?", "Are {a} and {b} of the same profession?"),
    ("same", "director"): ("Do {a} and {b} have the same director?", "Were {a} and {b} directed by the same person?"),
    ("same", "author"): ("Do {a} and {b} have the same author?", "Were {a} and {b} written by the same person?"),
}  # fmt: skip
COMPARISONS: tuple[tuple[str, str], ...] = tuple(COMPARE_WORDINGS)

# Wordings of constraints; the first is canonical.
MATCH_WORDINGS = (
    "Which {kind} was {c}?",
    "What is the {kind} {c}?",
    "Name the {kind} {c}.",
    "Which is the {kind} {c}?",
)
MATCHES: dict[EntityKind, tuple[tuple[str, str], ...]] = {
    "film": (("director", "release_year"), ("director", "studio"), ("release_year", "studio")),
    "book": (("author", "publication_year"), ("author", "publisher"), ("publication_year", "publisher")),
}


# --- meaning ----------------------------------------------------------------------------------------------------------
def answer(frame: Frame, world: World) -> str:
    """The right answer today; "unknown" where the world has none or several."""
    if isinstance(frame, Fact):
        entity = world.entities.get(frame.entity)
        return entity.facts.get(frame.relation, UNKNOWN) if entity else UNKNOWN
    if isinstance(frame, Bridge):
        return answer(Fact(answer(Fact(frame.entity, frame.first), world), frame.second), world)
    if isinstance(frame, Compare):
        values = [answer(Fact(name, frame.relation), world) for name in (frame.a, frame.b)]
        return combine(frame, values)
    found = matches(frame, world)
    return found[0] if len(found) == 1 else UNKNOWN


def combine(frame: Frame, answers: Sequence[str]) -> str:
    """The answer to a question from those to its sub-questions, as `sub_questions` lists them."""
    if not answers:
        return UNKNOWN
    if isinstance(frame, Compare) and len(answers) > 1:
        if UNKNOWN in answers:
            return UNKNOWN
        if frame.mode == "same":
            return "yes" if answers[0] == answers[1] else "no"
        first = answers[0] <= answers[1]
        return (frame.a if first else frame.b) if frame.mode == "first" else min(answers[:2])
    if isinstance(frame, Match):
        return answers[0]  # each constraint alone leaves several entities: nothing better can be said
    return answers[-1]


def matches(frame: Match, world: World) -> list[str]:
    """Every entity that meets all constraints."""
    found = [{e.name for e in world.by_value.get(c, ()) if e.kind == frame.kind} for c in frame.constraints]
    return sorted(set.intersection(*found)) if found else []


def entities_of(frame: Frame, world: World) -> list[str]:
    """Names of the entities whose passages answer the question, in the order in which they are needed."""
    if isinstance(frame, Fact):
        return [frame.entity]
    if isinstance(frame, Bridge):
        return [frame.entity, answer(Fact(frame.entity, frame.first), world)]
    if isinstance(frame, Compare):
        return [frame.a, frame.b]
    return matches(frame, world)


# --- words ------------------------------------------------------------------------------------------------------------
def canonical(frame: Frame) -> str:
    """The one wording that sub-questions use and user questions avoid."""
    return _word(frame, None, 0)


def reworded(frame: Frame, rng: random.Random, paraphrases: int = 5) -> str:
    """A user's wording: never the canonical one."""
    return _word(frame, rng, paraphrases)


def query(frame: Frame) -> str:
    """The key words that find the passages."""
    if isinstance(frame, Fact):
        return f"{frame.entity} {RELATIONS[frame.relation].keyword}"
    if isinstance(frame, Bridge):
        return f"{frame.entity} {RELATIONS[frame.first].keyword} {RELATIONS[frame.second].keyword}"
    if isinstance(frame, Compare):
        return f"{frame.a} {frame.b} {RELATIONS[frame.relation].keyword}"
    return " ".join([frame.kind, *(f"{RELATIONS[r].keyword} {value}" for r, value in frame.constraints)])


def sub_questions(frame: Frame, order: Order, target: str = "") -> tuple[str, ...]:
    """A decomposition, in canonical wording; a question of one step becomes its plain self.

    `target` is the wording of the question itself, which no sub-question may repeat.
    """
    if isinstance(frame, Bridge):
        second = Fact("#1", frame.second) if order == "serial" else frame
        parts: tuple[Frame, ...] = (Fact(frame.entity, frame.first), second)
    elif isinstance(frame, Compare):
        parts = (Fact(frame.a, frame.relation), Fact(frame.b, frame.relation))
    elif isinstance(frame, Match) and len(frame.constraints) > 1:
        parts = tuple(Match(frame.kind, (c,)) for c in frame.constraints)
    else:
        parts = (frame,)
    return tuple(text if (text := canonical(p)) != target else _word(p, random.Random(0), 2) for p in parts)


def _word(frame: Frame, rng: random.Random | None, paraphrases: int) -> str:
    if isinstance(frame, Fact):
        return _pick(RELATIONS[frame.relation].questions, rng, paraphrases).format(x=_mention(frame.entity, frame, rng))
    if isinstance(frame, Bridge):
        phrase = _pick(RELATIONS[frame.first].phrases, rng, paraphrases, skip=False)
        inner = phrase.format(x=_mention(frame.entity, Fact(frame.entity, frame.first), rng))
        return _pick(RELATIONS[frame.second].questions, rng, paraphrases).format(x=inner)
    if isinstance(frame, Compare):
        return _pick(COMPARE_WORDINGS[frame.mode, frame.relation], rng, paraphrases).format(a=frame.a, b=frame.b)
    parts = [
        _pick(RELATIONS[r].constraints, rng, paraphrases, skip=False).format(v=value) for r, value in frame.constraints
    ]
    if rng is not None:
        rng.shuffle(parts)
    return _pick(MATCH_WORDINGS, rng, paraphrases).format(kind=frame.kind, c=" and ".join(parts))


def _pick(options: Sequence[str], rng: random.Random | None, paraphrases: int, *, skip: bool = True) -> str:
    """The canonical option without `rng`; with it one of the others (`skip`) or of all."""
    if rng is None:
        return options[0]
    start = 1 if skip else 0
    return rng.choice(options[start : max(paraphrases, start + 1)])


def _mention(name: str, fact: Fact, rng: random.Random | None) -> str:
    kind = RELATIONS[fact.relation].subject
    return name if rng is None or kind == "person" or rng.random() < 0.5 else f"the {kind} {name}"


# --- understanding ----------------------------------------------------------------------------------------------------
NOW = (" today", " at present", " now", " as of this year")
_NAME = r"(?:the (?:film|book|city|company) )?(?P<{}>[A-Z]\w+(?: of)? [A-Z]\w+)"
_VALUE = r"(?P<{}>(?:[A-Z]\w+(?: of)? )?[\w]+)"


def understand(text: str) -> Frame | None:
    """The frame of a question in any wording, whatever stands before it; None for what microworld cannot ask."""
    last = re.split(r"(?<=[.?:]) (?=[A-Z])", text.strip())[-1] if text.strip() else ""
    for suffix in NOW:
        if last.endswith(suffix + "?"):
            last = last[: -len(suffix) - 1] + "?"
    return _understand(last)


@lru_cache(maxsize=8192)
def _understand(text: str) -> Frame | None:
    for name, pattern in _fact_patterns():
        if found := pattern.fullmatch(text):
            return Fact(found["x"], name)
    for first, second, pattern in _bridge_patterns():
        if found := pattern.fullmatch(text):
            return Bridge(found["x"], first, second)
    for mode, name, pattern in _compare_patterns():
        if found := pattern.fullmatch(text):
            return Compare(mode, name, found["a"], found["b"])
    for kind, pattern in _match_patterns():
        if found := pattern.fullmatch(text):
            constraints = _constraints(kind, found["c"])
            if constraints:
                return Match(kind, constraints)
    return None


def _pattern(template: str, slots: Mapping[str, str]) -> re.Pattern[str]:
    pattern = re.escape(template)
    for slot, expression in slots.items():
        pattern = pattern.replace(re.escape("{" + slot + "}"), expression)
    return re.compile(pattern)


@cache
def _fact_patterns() -> list[tuple[str, re.Pattern[str]]]:
    slot = {"x": _NAME.format("x")}
    return [(r.name, _pattern(q, slot)) for r in RELATIONS.values() for q in r.questions]


@cache
def _bridge_patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    slot = {"x": _NAME.format("x")}
    return [
        (first.name, second.name, _pattern(question.replace("{x}", phrase), slot))
        for first in RELATIONS.values()
        for second in RELATIONS.values()
        if first.target == second.subject
        for phrase in first.phrases
        for question in second.questions
    ]


@cache
def _compare_patterns() -> list[tuple[Literal["first", "least", "same"], str, re.Pattern[str]]]:
    slots = {"a": _NAME.format("a"), "b": _NAME.format("b")}
    return [
        (mode, name, _pattern(wording, slots))  # type: ignore[misc]
        for (mode, name), wordings in COMPARE_WORDINGS.items()
        for wording in wordings
    ]


@cache
def _match_patterns() -> list[tuple[EntityKind, re.Pattern[str]]]:
    return [(kind, _pattern(w.replace("{kind}", kind), {"c": "(?P<c>.+)"})) for kind in MATCHES for w in MATCH_WORDINGS]


def meaning(question: str) -> Frame:
    """The frame of a question that microworld asked. Raises `ValueError` for any other."""
    frame = understand(question)
    if frame is None:
        raise ValueError(f"not a microworld question: {question!r}")
    return frame


def _constraints(kind: EntityKind, text: str) -> tuple[tuple[str, str], ...]:
    """Read "directed by Ada Marlow and released in 1950"; empty where a part is not understood."""
    found: list[tuple[str, str]] = []
    for part in text.split(" and "):
        for relation in RELATIONS.values():
            if relation.subject != kind:
                continue
            hits = (_pattern(c, {"v": _VALUE.format("v")}).fullmatch(part) for c in relation.constraints)
            hit = next((h for h in hits if h), None)
            if hit:
                found.append((relation.name, hit["v"]))
                break
        else:
            return ()
    return tuple(sorted(found, key=lambda c: list(RELATIONS).index(c[0])))
