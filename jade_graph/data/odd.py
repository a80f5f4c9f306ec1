"""Odd questions: those that a data set holds and nobody can ask.

Invariant: an odd question ends no command. It is left out, named and counted, with the reason, beside the figures of
the rest; only a data set of which nothing is left is an error, and that of its first question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jade_graph.data.records import Broken, Record, absent, read_records
from jade_graph.errors import DataError
from jade_graph.types import Question

LONGEST_TEXT = 100_000
"""Characters of a question: about what a context of 32,768 tokens holds."""
LONGEST_ID = 200
"""Characters, as the run store keeps them."""
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Odd:
    """A question that was left out. `kind` completes "3 .. left out"; `reason` is a sentence about this one."""

    id: str
    kind: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        return {"id": self.id, "reason": self.reason}


def read_questions(path: Path, make: Callable[[Record], Question | None]) -> tuple[list[Question], list[Odd]]:
    """What `make` makes of every record of a file (None: no question), and those of which it can make nothing.

    Raises:
        DataError: what `read_records` raises; what is wrong with the first line that cannot be read, where these are
            more than the others (a file of another kind); DATASET_FIELD, of the first record, where none can be used.
    """
    broken: list[Broken] = []
    questions, odd, first = [], [], None
    number = 0
    for number, record in enumerate(read_records(path, broken), start=1):
        try:
            made = make(record)
        except DataError as error:
            named = next((record.data[f] for f in ("id", "_id", "question_id") if not absent(record.data.get(f))), "")
            kept = str(named) if isinstance(named, str | int) and str(named) else f"record {number}"
            odd.append(Odd(kept, "that cannot be read", error.message))
            first = first or error
            continue
        if made is not None:
            questions.append(made)
    if len(broken) > number:
        raise broken[0][1]
    if first is not None and not questions:
        raise first
    return questions, odd + [Odd(where, "that cannot be read", error.message) for where, error in broken]


def sieved(given: Iterable[Question]) -> tuple[tuple[Question, ...], list[Odd]]:
    """The questions that can be asked and told apart, in their order, and the others. The first of an id stays."""
    seen: set[str] = set()
    kept, odd = [], []
    for question in given:
        if (found := _odd(question, seen)) is None:
            seen.add(question.id)
            kept.append(question)
        else:
            odd.append(found)
    return tuple(kept), odd


def _odd(question: Question, seen: set[str]) -> Odd | None:
    name, text = question.id, question.question
    if not isinstance(text, str):
        return Odd(str(name), "whose question is no text", f"its question is {type(text).__name__}, no text")
    if not isinstance(name, str) or not name.strip():
        return Odd(repr(name), "without an id", f"the question {text[:60]!r} has no id")
    if not text.strip():
        return Odd(name, "without a text", "its question has no text")
    if len(name) > LONGEST_ID:
        told = f"its id has {len(name)} characters, more than {LONGEST_ID}"
        return Odd(name[:LONGEST_ID] + "..", "with a longer id than can be kept", told)
    if len(text) > LONGEST_TEXT:
        told = f"its question has {len(text):,} characters, more than {LONGEST_TEXT:,}"
        return Odd(name, "with a longer text than can be asked", told)
    if name in seen:
        return Odd(name, "with the id of another", "an earlier question has this id")
    return None


def notes(odd: Sequence[Odd]) -> list[str]:
    """How many were left out, by kind, with the first of their ids."""
    kinds: dict[str, list[str]] = {}
    for each in odd:
        kinds.setdefault(each.kind, []).append(each.id)
    out = []
    for kind, ids in kinds.items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        out.append(f"{len(ids)} {kind} left out: {', '.join(ids[:_NAMED])}{more}")
    return out


__all__ = ["LONGEST_ID", "LONGEST_TEXT", "Odd", "notes", "read_questions", "sieved"]
