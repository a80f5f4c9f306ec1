"""Which prompts of a batch begin alike, so that the beginning is computed once.

Invariant: a common beginning leaves each prompt at least one token to compute. A stem is common to all its rows, and a
row belongs to at most one. Runs of one question, and prompts that open with the same documents or instructions, begin
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SHORTEST = 16
"""Beginnings of fewer tokens are not worth the bookkeeping."""


@dataclass(frozen=True, slots=True)
class Stem:
    """The first `length` tokens are the same in all `rows` (indices, at least two)."""

    length: int
    rows: tuple[int, ...]

    @property
    def saved(self) -> int:
        """Tokens that need not be computed."""
        return self.length * (len(self.rows) - 1)


def shared_stems(prompts: Sequence[Sequence[int]], worth: int) -> list[Stem]:
    """The stems that together save most, of those that save at least `worth` tokens each.

    In lexicographic order rows that begin alike are neighbours, so a stem is a run of rows and its length the least
    common beginning of neighbours in it. A run is one stem, or is cut where that is least, whichever saves more.
    """
    order = sorted(range(len(prompts)), key=lambda row: tuple(prompts[row]))
    alike = [
        min(common(prompts[one], prompts[other]), len(prompts[one]) - 1, len(prompts[other]) - 1)
        for one, other in pairwise(order)
    ]
    return [stem for stem in _best(order, alike) if stem.saved >= worth]


def _best(rows: list[int], alike: list[int]) -> list[Stem]:
    if not alike:
        return []
    least = min(alike)
    whole = Stem(least, tuple(rows))
    cuts = [index for index, value in enumerate(alike) if value == least]
    parts: list[Stem] = []
    for first, last in pairwise([-1, *cuts, len(alike)]):
        parts += _best(rows[first + 1 : last + 1], alike[first + 1 : last])
    if least < SHORTEST or sum(stem.saved for stem in parts) > whole.saved:
        return parts
    return [whole]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    limit = min(len(one), len(other))
    return next((index for index in range(limit) if one[index] != other[index]), limit)
