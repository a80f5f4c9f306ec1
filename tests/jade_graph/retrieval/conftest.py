"""Passages of a small invented world, and an encoder that counts what it embeds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jade_graph.retrieval.encoder import HashingEncoder, Vectors
from jade_graph.types import Passage

_PEOPLE = ("Ann Lee", "Bo Marsh", "Cy Dunn", "Di Vance", "Ed Stone", "Flo Reed")
_PLACES = ("Norwick", "Ostby", "Pell", "Quorn", "Rusk", "Selby")


class CountingEncoder(HashingEncoder):
    """Remembers every text that it was asked to embed."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim)
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.seen.extend(texts)
        return super().encode(texts, query=query)


@pytest.fixture
def world() -> list[Passage]:
    people = [
        Passage(f"p{i}", f"{name} is a painter who was born in {place} and likes boats.", name)
        for i, (name, place) in enumerate(zip(_PEOPLE, _PLACES, strict=True))
    ]
    places = [
        Passage(f"c{i}", f"{place} is a city on the river with {i} bridges.", place) for i, place in enumerate(_PLACES)
    ]
    return people + places


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()
