"""Data sets: questions, and the passages that they are asked over.

Invariant: `dataset_id` names the questions in it, answers and gold passages included, so equal ids may be compared;
question ids are unique, and every passage has one id however many questions bring it. Questions that nobody can ask are
left out and named (`odd`).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property

from jade_graph.data.odd import Odd, sieved
from jade_graph.data.odd import notes as odd_notes
from jade_graph.errors import DataError, UsageError
from jade_graph.types import Passage, Question

PassageSource = Callable[[], Iterable[Passage]]


class Dataset:
    """Questions with their passages, which are read when they are first asked for.

    Args:
        passages: the passages, or a function that reads them; a data set may have none.
        notes: what the reader should know, e.g. how many records were left out.
        left_out: questions that could not be read. Those of `questions` that cannot be asked or told apart join them.

    Raises:
        DataError: DATASET_EMPTY; DATASET_IDS where no question is left because none has an id.
    """

    def __init__(
        self,
        name: str,
        questions: Iterable[Question],
        passages: Iterable[Passage] | PassageSource = (),
        *,
        format: str = "",
        notes: Sequence[str] = (),
        left_out: Sequence[Odd] = (),
    ) -> None:
        self.name, self.format = name, format
        self.questions, found = sieved(questions)
        self.left_out: tuple[Odd, ...] = (*left_out, *found)
        self._notes, self._source = tuple(notes), passages
        if not self.questions:
            told = "".join(f" {note}." for note in odd_notes(self.left_out))
            unnamed = bool(found) and all(each.kind == "without an id" for each in found)
            code = "DATASET_IDS" if unnamed else "DATASET_EMPTY"
            raise DataError(f"the data set {name!r} has no questions.{told}", code=code)

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self.questions)} questions, format={self.format!r})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know: those that were given, and what was left out."""
        return (*self._notes, *odd_notes(self.left_out))

    @property
    def odd(self) -> list[dict[str, str]]:
        """The questions that were left out, each with its reason, as `--json` and manifests have them."""
        return [each.as_dict() for each in self.left_out]

    def _of(self, questions: Sequence[Question]) -> Dataset:
        """Some of the questions, over the same passages."""
        passages = lambda: self.passages  # noqa: E731
        return Dataset(self.name, questions, passages, format=self.format, notes=self._notes, left_out=self.left_out)

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """Every passage of the whole data set, whatever the limit on questions. Raises `DataError` while reading."""
        return tuple(self._source() if callable(self._source) else self._source)

    @cached_property
    def dataset_id(self) -> str:
        """16 hexadecimal digits over the questions, without their metadata."""
        digest = hashlib.sha256()
        for question in self.questions:
            record = asdict(question)
            del record["metadata"]
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()[:16]

    def head(self, limit: int | None) -> Dataset:
        """The first `limit` questions over the same passages. Raises `UsageError` BAD_LIMIT below 1."""
        if limit is None or limit >= len(self.questions):
            return self
        if limit < 1:
            raise UsageError(f"the limit {limit} leaves no question.", code="BAD_LIMIT", hint="--limit 50")
        return self._of(self.questions[:limit])

    def sample(self, count: int | None, seed: int = 0) -> Dataset:
        """So many questions drawn with the seed, in their order, over the same passages. Raises `UsageError` BAD_LIMIT.

        The first of a larger sample with the same seed are those of a smaller one.
        """
        if count is None or count >= len(self.questions):
            return self
        if count < 1:
            raise UsageError(f"a sample of {count} is no question.", code="BAD_LIMIT", hint="--sample 50")
        order = random.Random(f"sample {seed}").sample(range(len(self.questions)), len(self.questions))
        return self._of([self.questions[i] for i in sorted(order[:count])])


class PassagePool:
    """Passages of many questions' contexts, each kept once; ids as in the copies' schema: sha1(title, text)[:12]."""

    def __init__(self) -> None:
        self._found: dict[str, Passage] = {}

    def add(self, title: str, text: str) -> str:
        """The id of this passage; white space is normalised first."""
        title, text = " ".join(title.split()), " ".join(text.split())
        key = hashlib.sha1(f"{title}\n{text}".encode(), usedforsecurity=False).hexdigest()[:12]
        self._found.setdefault(key, Passage(key, text, title))
        return key

    def passages(self) -> tuple[Passage, ...]:
        return tuple(self._found.values())
