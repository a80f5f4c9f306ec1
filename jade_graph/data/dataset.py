"""Data sets: questions, and the passages that they are asked over.

Invariant: `dataset_id` names the questions in it, answers and gold passages included, so equal ids may be compared;
question ids are unique, and every passage has one id however many questions bring it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property

from jade_graph.errors import DataError, UsageError
from jade_graph.types import Passage, Question

PassageSource = Callable[[], Iterable[Passage]]


class Dataset:
    """Questions with their passages, which are read when they are first asked for.

    Args:
        passages: the passages, or a function that reads them; a data set may have none.
        notes: what the reader should know, e.g. how many records were left out.

    Raises:
        DataError: DATASET_EMPTY, or DATASET_IDS when two questions share an id.
    """

    def __init__(
        self,
        name: str,
        questions: Iterable[Question],
        passages: Iterable[Passage] | PassageSource = (),
        *,
        format: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self.name, self.format, self.notes = name, format, tuple(notes)
        self.questions: tuple[Question, ...] = tuple(questions)
        self._source = passages
        if not self.questions:
            raise DataError(f"the data set {name!r} has no questions.", code="DATASET_EMPTY")
        seen: set[str] = set()
        for question in self.questions:
            if not question.id or question.id in seen:
                raise DataError(
                    f"the data set {name!r} has two questions with the id {question.id!r}, or one without an id.",
                    code="DATASET_IDS",
                )
            seen.add(question.id)

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self.questions)} questions, format={self.format!r})"

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
        return Dataset(self.name, self.questions[:limit], lambda: self.passages, format=self.format, notes=self.notes)

    def sample(self, count: int | None, seed: int = 0) -> Dataset:
        """So many questions drawn with the seed, in their order, over the same passages. Raises `UsageError` BAD_LIMIT.

        The first of a larger sample with the same seed are those of a smaller one.
        """
        if count is None or count >= len(self.questions):
            return self
        if count < 1:
            raise UsageError(f"a sample of {count} is no question.", code="BAD_LIMIT", hint="--sample 50")
        order = random.Random(f"sample {seed}").sample(range(len(self.questions)), len(self.questions))
        drawn = [self.questions[i] for i in sorted(order[:count])]
        return Dataset(self.name, drawn, lambda: self.passages, format=self.format, notes=self.notes)


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
