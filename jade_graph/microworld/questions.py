"""Questions about a world, of seven kinds, each with the plan that is right for it.

Invariant: every question has exactly one right answer in its world (or in its own premise), its supporting passages
state it, and the same (world, n, seed) always gives the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from jade_graph.errors import UsageError
from jade_graph.microworld import frames
from jade_graph.microworld.frames import Bridge, Compare, Fact, Frame, Match
from jade_graph.microworld.lexicon import names
from jade_graph.microworld.relations import RELATIONS
from jade_graph.microworld.world import Entity, World, capitalised, named
from jade_graph.types import Question, SubQuestion

Kind = Literal["1hop", "noisy", "2hop", "comparison", "context", "conjunction", "edition"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHARES: Mapping[Kind, float] = {
    "1hop": 0.20,
    "noisy": 0.15,
    "2hop": 0.20,
    "comparison": 0.13,
    "context": 0.12,
    "conjunction": 0.10,
    "edition": 0.10,
}
"""How often each kind is asked."""

BEST_PLAN: Mapping[Kind, str] = {
    "1hop": "R,AG",
    "noisy": "QR,R,AG",
    "2hop": "QDS",
    "comparison": "QDP",
    "context": "AG",
    "conjunction": "R,AG",
    "edition": "R,DS,AG",
}
"""The cheapest plan that solves the kind when every executor does its job."""

TALK = ("Yesterday we had a long talk.", "My friends keep telling me things.", "I have just read the news.",
         "This week I learned much.")  # fmt: skip
PREMISE = ("Suppose the following: {statement}", "In a play it is said: {statement}", "Take it as given: {statement}",
            "A story begins like this: {statement}")  # fmt: skip


def make_questions(
    world: World, n: int, *, seed: int = 0, kinds: Mapping[Kind, float] | None = None
) -> tuple[Question, ...]:
    """Ask `n` questions, `kinds` in proportion (default `SHARES`), in random order.

    Raises `UsageError` for an unknown kind, or when the world is too small for that many different ones.
    """
    shares = dict(SHARES if kinds is None else kinds)
    if bad := [k for k in shares if k not in KINDS]:
        raise UsageError(f"unknown question kind {bad[0]!r}.", code="MICROWORLD_KIND", known=KINDS)
    rng = random.Random(f"microworld questions {world.split} {world.seed} {seed}")
    total = sum(shares.values())
    counts = {kind: int(n * share / total) for kind, share in shares.items()}
    for kind in sorted(shares, key=lambda k: counts[k] - n * shares[k] / total)[: n - sum(counts.values())]:
        counts[kind] += 1
    questions: list[Question] = []
    seen: set[str] = set()
    for kind, count in counts.items():
        made = tries = 0
        while made < count:
            tries += 1
            if tries > 200 + 50 * count:
                raise UsageError(
                    f"the world has only {made} different {kind!r} questions, {count} were asked for.",
                    code="MICROWORLD_TOO_SMALL",
                    hint="a larger scale, or fewer questions",
                )
            question = make_question(world, kind, rng, f"{world.split}{world.seed}-{seed}-{kind}-{made}")
            if question is None or question.question in seen:
                continue
            seen.add(question.question)
            questions.append(question)
            made += 1
    rng.shuffle(questions)
    return tuple(questions)


def make_question(world: World, kind: Kind, rng: random.Random, question_id: str) -> Question | None:
    """One question of a kind; None where this draw has no unique answer (draw again)."""
    drawn = _DRAW[kind](world, rng)
    if drawn is None:
        return None
    return _asked(world, kind, rng, question_id, *drawn)


def question_about(world: World, kind: Kind, rng: random.Random, question_id: str, fact: Fact) -> Question | None:
    """A question of one of the kinds about a single fact ("1hop", "noisy", "context", "edition"); None as above."""
    premise = _premise(world, rng, fact) if kind == "context" else ""
    if premise is None or (kind == "edition") != world.entities[fact.entity].edited:
        return None
    return _asked(world, kind, rng, question_id, fact, premise)


def _asked(world: World, kind: Kind, rng: random.Random, question_id: str, frame: Frame, premise: str) -> Question:
    text = frames.reworded(frame, rng, world.difficulty.paraphrases)
    if kind == "noisy":
        text = f"{_noise(world, rng, frame)} {text}" if world.difficulty.prefix_facts else text
    elif kind == "context":
        assert isinstance(frame, Fact)
        relation = RELATIONS[frame.relation]
        statement = rng.choice(relation.statements).format(s=named(rng, relation.subject, frame.entity), v=premise)
        text = f"{rng.choice(PREMISE).format(statement=capitalised(statement))} {text}"
    elif kind == "edition":
        text = text.removesuffix("?") + rng.choice(frames.NOW) + "?"
    order: Literal["serial", "parallel"] = "parallel" if kind in ("comparison", "conjunction") else "serial"
    needed = frames.entities_of(frame, world)
    supporting = () if kind == "context" else tuple(world.entities[name].passage for name in needed)
    parts = frames.sub_questions(frame, order)
    return Question(
        id=question_id,
        question=text,
        answers=(premise or frames.answer(frame, world),),
        type=kind,
        hops=2 if kind in ("2hop", "comparison") else 1,
        supporting=supporting,
        decomposition=_decomposition(frame, world, parts) if kind in ("2hop", "comparison") else (),
        metadata={
            "premise": premise,
            "best_plan": BEST_PLAN[kind],
            "query": frames.query(frame),
            "serial": list(frames.sub_questions(frame, "serial")),
            "parallel": list(frames.sub_questions(frame, "parallel")),
        },
    )


def _decomposition(frame: Frame, world: World, parts: tuple[str, ...]) -> tuple[SubQuestion, ...]:
    steps: tuple[Fact, ...]
    if isinstance(frame, Bridge):
        middle = frames.answer(Fact(frame.entity, frame.first), world)
        steps = (Fact(frame.entity, frame.first), Fact(middle, frame.second))
    else:
        assert isinstance(frame, Compare)
        steps = (Fact(frame.a, frame.relation), Fact(frame.b, frame.relation))
    return tuple(
        SubQuestion(text, frames.answer(step, world), (world.entities[step.entity].passage,))
        for text, step in zip(parts, steps, strict=True)
    )


# --- drawing what to ask ----------------------------------------------------------------------------------------------
Drawn = tuple[Frame, str] | None  # a frame, and the premise of a context question


def _plain(world: World, rng: random.Random) -> Entity:
    """An entity of any kind that was never edited, kinds weighed alike."""
    while True:
        entity = rng.choice(world.by_kind[rng.choice(list(world.by_kind))])
        if not entity.edited:
            return entity


def _fact(world: World, rng: random.Random) -> Drawn:
    entity = _plain(world, rng)
    return Fact(entity.name, rng.choice(list(entity.facts))), ""


def _bridge(world: World, rng: random.Random) -> Drawn:
    entity = _plain(world, rng)
    linked = [r for r in entity.facts if RELATIONS[r].phrases]
    if not linked:
        return None
    first = rng.choice(linked)
    middle = world.entities[entity.facts[first]]
    second = rng.choice(list(middle.facts))
    if middle.edited or middle.facts[second] == entity.name:
        return None
    return Bridge(entity.name, first, second), ""


def _comparison(world: World, rng: random.Random) -> Drawn:
    wanted = rng.choice(("first", "least", "same"))
    mode, name = rng.choice([c for c in frames.COMPARISONS if c[0] == wanted])
    pool = [e for e in world.by_kind[RELATIONS[name].subject] if not e.edited]
    a, b = rng.sample(pool, 2)
    if mode == "same" and rng.random() < 0.5:
        alike = [e for e in world.by_value[name, a.facts[name]] if e.name != a.name and not e.edited]
        if not alike:
            return None
        b = rng.choice(alike)
    if mode != "same" and a.facts[name] == b.facts[name]:
        return None
    return Compare(mode, name, a.name, b.name), ""  # type: ignore[arg-type]


def _context(world: World, rng: random.Random) -> Drawn:
    entity = _plain(world, rng)
    fact = Fact(entity.name, rng.choice(list(entity.facts)))
    premise = _premise(world, rng, fact)
    return None if premise is None else (fact, premise)


def _premise(world: World, rng: random.Random, fact: Fact) -> str | None:
    """A value that is not the world's."""
    relation = RELATIONS[fact.relation]
    pool = relation.values or names(relation.target, world.split)
    premise = rng.choice(pool)
    return None if premise in (frames.answer(fact, world), fact.entity) else premise


def _conjunction(world: World, rng: random.Random) -> Drawn:
    kind = rng.choice(list(frames.MATCHES))
    entity = rng.choice(world.by_kind[kind])
    frame = Match(kind, tuple((r, entity.facts[r]) for r in rng.choice(frames.MATCHES[kind])))
    several = all(len(world.by_value[c]) > 2 for c in frame.constraints)
    return (frame, "") if several and len(frames.matches(frame, world)) == 1 else None


def _edition(world: World, rng: random.Random) -> Drawn:
    pool = [e for kind in ("city", "company") for e in world.by_kind[kind] if e.edited]
    if not pool:
        return None
    entity = rng.choice(pool)
    return Fact(entity.name, rng.choice([r for r in entity.facts if RELATIONS[r].mutable])), ""


def _noise(world: World, rng: random.Random, frame: Frame) -> str:
    """True sentences about other entities, of the most linked kinds: they draw the search away."""
    assert isinstance(frame, Fact)
    said: dict[str, str] = {}
    while len(said) < world.difficulty.prefix_facts:
        entity = rng.choice(world.by_kind[rng.choice(("film", "book"))])
        linked = [r for r in entity.facts if RELATIONS[r].target]
        relation = RELATIONS[rng.choice(linked)]
        if frame.entity not in (entity.name, entity.facts[relation.name]):
            subject = named(rng, entity.kind, entity.name)
            said[entity.name] = capitalised(
                rng.choice(relation.statements).format(s=subject, v=entity.facts[relation.name])
            )
    return f"{rng.choice(TALK)} {' '.join(said.values())}"


_DRAW: dict[Kind, Callable[[World, random.Random], Drawn]] = {
    "1hop": _fact,
    "noisy": _fact,
    "2hop": _bridge,
    "comparison": _comparison,
    "context": _context,
    "conjunction": _conjunction,
    "edition": _edition,
}
