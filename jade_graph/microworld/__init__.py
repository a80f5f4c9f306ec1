"""Microworld: invented worlds whose right answers, right plans and ceiling are known.

Invariant: pure Python, seeded, without a model; worlds of different splits share no entity. `jade_graph.data` reads it
as `microworld:test?n=200&seed=1`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from jade_graph.errors import UsageError, unknown
from jade_graph.microworld.lexicon import SPLITS, Split
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.questions import BEST_PLAN, KINDS, SHARES, Kind, make_questions
from jade_graph.microworld.vocabulary import is_foreign, vocabulary
from jade_graph.microworld.world import Difficulty, World, make_world

if TYPE_CHECKING:
    from jade_graph.data import Dataset

_NUMBERS: dict[str, type] = {"n": int, "seed": int, "world": int} | {
    f.name: float if f.name in ("scale", "edited", "pronouns") else int for f in fields(Difficulty)
}


def dataset(rest: str = "", *, split: str | None = None, limit: int | None = None, **options: Any) -> Dataset:
    """Questions and passages of a world, as a data set.

    Args:
        rest: the split, and options after a question mark: `test?n=200&seed=1`.
        split: of the world, where `rest` names none.
        limit: as many questions, where `n` is not given.
        options: the same by keyword. n: questions (200). seed: which questions (0). world: which world (the seed).
            kinds: comma-separated question kinds (all). And the fields of `Difficulty`.

    Raises:
        UsageError: MICROWORLD_SPLIT, UNKNOWN_MICROWORLD_OPTION, MICROWORLD_OPTION, MICROWORLD_KIND,
            MICROWORLD_TOO_SMALL.
    """
    from jade_graph.data import Dataset

    named, mark, query = rest.partition("?")
    if limit is not None and "n=" not in query:
        options.setdefault("n", limit)
    world, questions, name = parse(f"{named or split or 'test'}{mark}{query}", **options)
    return Dataset(name=name, questions=questions, passages=world.passages)


def parse(rest: str = "test", **options: Any) -> tuple[World, tuple[Any, ...], str]:
    """The world, the questions and the full name behind a `dataset` spec."""
    split, _, query = rest.partition("?")
    given: dict[str, Any] = {**dict(parse_qsl(query, keep_blank_values=True)), **options}
    for name in given:
        if name not in _NUMBERS and name != "kinds":
            raise unknown("microworld option", name, [*_NUMBERS, "kinds"], code="UNKNOWN_MICROWORLD_OPTION")
    values = {name: _number(name, value) for name, value in given.items() if name != "kinds"}
    kinds = given.get("kinds")
    if isinstance(kinds, str):
        kinds = [k for k in kinds.split(",") if k]
    n, seed = int(values.pop("n", 200)), int(values.pop("seed", 0))
    world = make_world(cast("Split", split or "test"), int(values.pop("world", seed)), Difficulty(**values))
    shares = None if kinds is None else {cast("Kind", k): SHARES.get(cast("Kind", k), 0.0) for k in kinds}
    questions = make_questions(world, n, seed=seed, kinds=shares)
    extra = "&".join(f"{k}={v}" for k, v in sorted(given.items()))
    return world, questions, f"microworld:{world.split}" + (f"?{extra}" if extra else "")


def _number(name: str, value: Any) -> Any:
    try:
        return _NUMBERS[name](value)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"microworld {name} is {value!r}, not {'a whole number' if _NUMBERS[name] is int else 'a number'}.",
            code="MICROWORLD_OPTION",
        ) from error


__all__ = [
    "BEST_PLAN",
    "KINDS",
    "SHARES",
    "SPLITS",
    "Difficulty",
    "OraclePolicy",
    "World",
    "dataset",
    "is_foreign",
    "make_questions",
    "make_world",
    "parse",
    "vocabulary",
]
