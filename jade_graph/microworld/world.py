"""An invented world: entities, what is true of them, and the passages that say so.

Invariant: a world is a pure function of (split, seed, difficulty). Names are unique within it, worlds of different
splits share no entity, and each passage states each fact of its entity exactly once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from jade_graph.errors import UsageError
from jade_graph.microworld.lexicon import ENTITY_KINDS, SPLITS, EntityKind, Split, names
from jade_graph.microworld.relations import RELATIONS, Relation, relations_of
from jade_graph.types import Passage

_COUNTS: dict[EntityKind, int] = {"person": 900, "film": 700, "book": 560, "city": 340, "company": 420}
CURRENT = ("This is the current edition.", "The latest edition reads as follows.", "What follows is up to date.",
           "From the edition in force.")  # fmt: skip
OUTDATED = ("This is an outdated edition.", "An old edition reads as follows.", "What follows is out of date.",
            "From an edition no longer in force.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What makes a world hard.

    Attributes:
        scale: factor on the number of entities; 0.5 gives about 1,850 passages.
        paraphrases: how many wordings of each statement and question are in use, 1 to 5.
        prefix_facts: how many sentences about other entities stand before a `noisy` question, 0 to 4.
        editions: how many outdated passages stand beside the current one of an edited entity, 0 to 4.
        edited: the share of cities and companies that were edited.
        pronouns: the share of sentences after a passage's first that say "this film" instead of the name.
    """

    scale: float = 0.5
    paraphrases: int = 2
    prefix_facts: int = 3
    editions: int = 3
    edited: float = 0.3
    pronouns: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("scale", 0.05, 1.0),
            ("paraphrases", 1, 5),
            ("prefix_facts", 0, 4),
            ("editions", 0, 4),
            ("edited", 0.0, 1.0),
            ("pronouns", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"microworld {name} is {value!r}, outside {low} to {high}.", code="MICROWORLD_OPTION")


@dataclass(frozen=True, slots=True)
class Entity:
    """`facts` maps a relation to its value as text: a closed value, or another entity's name.

    `old` holds the facts of the outdated editions, and is empty for an entity that was never edited.
    """

    name: str
    kind: EntityKind
    facts: Mapping[str, str]
    passage: str
    old: tuple[Mapping[str, str], ...] = ()
    old_passages: tuple[str, ...] = ()

    @property
    def edited(self) -> bool:
        return bool(self.old)


@dataclass(frozen=True)
class World:
    """Entities by name, and one passage for each of their editions. Build with `make_world`."""

    split: Split
    seed: int
    difficulty: Difficulty
    entities: Mapping[str, Entity]
    passages: tuple[Passage, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return f"microworld-{self.split}-{self.seed}"

    @property
    def parameters(self) -> dict[str, object]:
        """What to give `make_world` to get this world again."""
        return {"split": self.split, "seed": self.seed, **asdict(self.difficulty)}

    @cached_property
    def by_id(self) -> dict[str, Passage]:
        return {p.id: p for p in self.passages}

    @cached_property
    def by_kind(self) -> dict[EntityKind, tuple[Entity, ...]]:
        return {k: tuple(e for e in self.entities.values() if e.kind == k) for k in ENTITY_KINDS}

    @cached_property
    def by_value(self) -> dict[tuple[str, str], tuple[Entity, ...]]:
        """(relation, value) to the entities of which it is true today."""
        found: dict[tuple[str, str], list[Entity]] = {}
        for entity in self.entities.values():
            for relation, value in entity.facts.items():
                found.setdefault((relation, value), []).append(entity)
        return {key: tuple(entities) for key, entities in found.items()}

    @cached_property
    def by_word(self) -> dict[str, tuple[Entity, ...]]:
        """A piece of a name to the entities that bear it: near distractors."""
        found: dict[str, list[Entity]] = {}
        for entity in self.entities.values():
            for word in entity.name.split():
                if word != "of":
                    found.setdefault(word, []).append(entity)
        return {word: tuple(entities) for word, entities in found.items()}


def make_world(split: Split, seed: int = 0, difficulty: Difficulty | None = None) -> World:
    """Invent a world. Raises `UsageError` for an unknown split."""
    if split not in SPLITS:
        raise UsageError(f"unknown microworld split {split!r}.", code="MICROWORLD_SPLIT", known=SPLITS)
    difficulty = difficulty or Difficulty()
    rng = random.Random(f"microworld {split} {seed}")
    pool: dict[EntityKind, list[str]] = {}
    for kind, count in _COUNTS.items():
        pool[kind] = rng.sample(names(kind, split), max(12, round(count * difficulty.scale)))
    # A few people and companies make most films and books, so that one of them leads to several.
    makers: dict[str, list[str]] = {
        "director": _some(rng, pool["person"], len(pool["film"]) / 5),
        "author": _some(rng, pool["person"], len(pool["book"]) / 5),
        "studio": _some(rng, pool["company"], len(pool["film"]) / 5),
        "publisher": _some(rng, pool["company"], len(pool["book"]) / 5),
    }
    entities: dict[str, Entity] = {}
    passages: list[Passage] = []
    for kind, kind_names in pool.items():
        for name in kind_names:
            facts = {r.name: _value(rng, r, name, pool, makers) for r in relations_of(kind)}
            old: list[dict[str, str]] = []
            if any(r.mutable for r in relations_of(kind)) and rng.random() < difficulty.edited:
                for _ in range(difficulty.editions):
                    old.append(_outdated(rng, kind, name, facts, old, pool, makers))
            ids = tuple(f"{kind}-{len(passages) + i}" for i in range(len(old) + 1))
            marks = [rng.choice(CURRENT) if old else "", *(rng.choice(OUTDATED) for _ in old)]
            for i, (state, mark) in enumerate(zip((facts, *old), marks, strict=True)):
                text = describe(rng, kind, name, state, difficulty)
                metadata = {"kind": kind, "entity": name, "edition": "old" if i else "current"}
                passages.append(Passage(ids[i], f"{mark} {text}".strip(), name, metadata=metadata))
            entities[name] = Entity(name, kind, facts, ids[0], tuple(old), ids[1:])
    rng.shuffle(passages)
    return World(split, seed, difficulty, entities, tuple(passages))


def describe(rng: random.Random, kind: EntityKind, name: str, facts: Mapping[str, str], difficulty: Difficulty) -> str:
    """A passage: every fact in one sentence, in any order, the entity named in the first and usually in the others."""
    sentences: list[str] = []
    order = list(facts)
    rng.shuffle(order)
    for relation in order:
        subject = f"this {kind}" if sentences and rng.random() < difficulty.pronouns else named(rng, kind, name)
        statement = rng.choice(RELATIONS[relation].statements[: difficulty.paraphrases])
        text = statement.format(s=subject, v=facts[relation])
        sentences.append(capitalised(text))
    return " ".join(sentences)


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def named(rng: random.Random, kind: EntityKind, name: str) -> str:
    """An entity as it is mentioned: with its kind ("the film Silver Harbor") or without."""
    return name if kind == "person" or rng.random() < 0.5 else f"the {kind} {name}"


def _some(rng: random.Random, pool: list[str], count: float) -> list[str]:
    return rng.sample(pool, min(len(pool), max(3, round(count))))


def _value(
    rng: random.Random,
    relation: Relation,
    name: str,
    pool: Mapping[EntityKind, list[str]],
    makers: Mapping[str, list[str]],
) -> str:
    if relation.target is None:
        return rng.choice(relation.values)
    choices = makers.get(relation.name) or pool[relation.target]
    while True:
        value = rng.choice(choices)
        if value != name:
            return value


def _outdated(
    rng: random.Random,
    kind: EntityKind,
    name: str,
    facts: Mapping[str, str],
    older: list[dict[str, str]],
    pool: Mapping[EntityKind, list[str]],
    makers: Mapping[str, list[str]],
) -> dict[str, str]:
    """The facts as an older edition has them: every mutable one differs from all other editions."""
    state = dict(facts)
    for relation in relations_of(kind):
        if relation.mutable:
            taken = {facts[relation.name], *(o[relation.name] for o in older)}
            while (value := _value(rng, relation, name, pool, makers)) in taken:
                continue
            state[relation.name] = value
    return state
