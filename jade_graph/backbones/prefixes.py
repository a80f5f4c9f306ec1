"""Which prompts begin alike, so that the beginning is computed once: within a batch, and while it goes on.

Invariant: a common beginning leaves each prompt at least one token to compute. A stem is common to all its rows, and a
row belongs to at most one; what `Beginnings` finds was compared token by token. Runs of one question, and prompts that
open with the same documents or instructions, begin alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

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
    common = [
        _common(prompts[one], prompts[other], min(len(prompts[one]), len(prompts[other])) - 1)
        for one, other in pairwise(order)
    ]
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


def _common(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Length of the common beginning, at most `limit`."""
    limit = min(limit, len(other))
    for index in range(limit):
        if one[index] != other[index]:
            return index
    return limit


@dataclass(slots=True, eq=False)
class Beginning:
    """A prompt whose keys and values are at hand, `kv` (layers, 2, heads, at least its tokens, width)."""

    tokens: tuple[int, ...]
    kv: Tensor
    keys: tuple[int, ...] = field(default=())


class Beginnings:
    """Prompts that were computed, at most `budget` tokens of them: those asked for last.

    Args:
        budget: tokens. Older prompts are forgotten.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._tokens = 0
        self._index: dict[int, Beginning] = {}
        # By use, the least recent first.
        self._known: dict[int, Beginning] = {}

    def find(self, prompt: Sequence[int]) -> tuple[Beginning | None, int]:
        """A prompt that begins as this one does, and how many tokens they share (0: none, else 16 or more)."""
        for key in reversed(list(_keys(prompt))):
            found = self._index.get(key)
            if found is not None:
                shared = _common(prompt, found.tokens, len(prompt) - 1)
                if shared >= _SHORTEST:
                    self._known[id(found)] = self._known.pop(id(found))
                    return found, shared
        return None, 0

    def add(self, prompt: Sequence[int], kv: Tensor) -> Beginning | None:
        """Remember a prompt; None where nothing in it is new."""
        keys = tuple(key for key in _keys(prompt) if key not in self._index)
        if not keys:
            return None
        added = Beginning(tuple(prompt), kv, keys)
        self._known[id(added)] = added
        self._index.update(dict.fromkeys(keys, added))
        self._tokens += len(prompt)
        return added

    def trim(self) -> None:
        """Forget what is over the budget."""
        while self._tokens > self._budget:
            oldest = self._known.pop(next(iter(self._known)))
            self._tokens -= len(oldest.tokens)
            for key in oldest.keys:
                del self._index[key]


def _keys(prompt: Sequence[int]) -> Iterator[int]:
    """A hash of every beginning of 16, 32, .. tokens."""
    key = 0
    for end in range(_SHORTEST, len(prompt) + 1, _SHORTEST):
        key = hash((key, *prompt[end - _SHORTEST : end]))
        yield key
