"""A finite language of token-id sequences, for constrained decoding.

Invariant: a walk from the start along allowed tokens ends in a choice, whole and exact; nothing else can be spelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache


class Trie:
    """A finite language of token-id sequences, as states. State 0 is the start; `step[state][token]` is the next."""

    __slots__ = ("allowed", "step")

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        self.step: list[dict[int, int]] = [{}]
        for choice in choices:
            state = 0
            for token in choice:
                if token not in self.step[state]:
                    self.step[state][token] = len(self.step)
                    self.step.append({})
                state = self.step[state][token]
        self.allowed: list[list[int]] = [sorted(edges) for edges in self.step]


@lru_cache(maxsize=256)
def trie_of(choices: tuple[tuple[int, ...], ...]) -> Trie:
    return Trie(choices)
