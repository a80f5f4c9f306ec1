"""Which prompts of a batch begin alike, so that the beginning is computed once.

Invariant: a stem is a common beginning of all its rows and leaves each at least one token to compute; a row belongs to
at most one stem. Runs of one question, and prompts that open with the same documents or instructions, have stems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SHORTEST = 16


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
    common = [_common(prompts[one], prompts[other]) for one, other in pairwise(order)]
    return [stem for stem in _best(order, common) if stem.saved >= worth]


def _best(rows: list[int], common: list[int]) -> list[Stem]:
    if not common:
        return []
    least = min(common)
    whole = Stem(least, tuple(rows))
    cuts = [index for index, value in enumerate(common) if value == least]
    parts: list[Stem] = []
    for first, last in pairwise([-1, *cuts, len(common)]):
        parts += _best(rows[first + 1 : last + 1], common[first + 1 : last])
    if least < _SHORTEST or sum(stem.saved for stem in parts) > whole.saved:
        return parts
    return [whole]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning, at most all but the last token of the shorter."""
    limit = min(len(one), len(other)) - 1
    for index in range(limit):
        if one[index] != other[index]:
            return index
    return limit
