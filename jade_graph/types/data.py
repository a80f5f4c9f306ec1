"""What is asked and what is read: questions, passages, and where passages are found.

Invariant: plain values; `corpus_id` of a retriever names content and encoder, so equal ids rank alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved or indexed piece of text. `score` is the retriever's own (higher is better), 0 when unranked."""

    id: str
    text: str
    title: str = ""
    score: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class SubQuestion:
    """One step of a data set's own decomposition; `#1`, `#2` in `question` stand for earlier answers."""

    question: str
    answer: str
    supporting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its gold answers (any of them is right) and, where the data set has them, supporting passages."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    type: str = ""
    hops: int = 1
    supporting: tuple[str, ...] = ()
    decomposition: tuple[SubQuestion, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Retriever(Protocol):
    """Ranked passages for a query. `corpus_id` names content and encoder: equal ids rank alike."""

    @property
    def corpus_id(self) -> str: ...

    async def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages, best first, no id twice. Raises `RetrievalError`."""
        ...


@runtime_checkable
class Reranking(Protocol):
    """A retriever that puts its own passages into a better order. Optional for a `Retriever`; asked by the tool RR."""

    async def rerank(self, query: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """At most `k` of these passages, best first, whatever their scores and order said. Raises `RetrievalError`."""
        ...
