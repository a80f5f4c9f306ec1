"""Rows that begin alike, laid out so that what they have in common is read once, forwards and backwards.

Invariant: a token sees the tokens before it in its own row and no other, at the places that they have there;
log-probabilities and gradients are those of the rows read one by one, but for the order in which sums are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jade_graph.backbones.prefixes import SHORTEST, common

Pair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and action ids, neither empty."""

SPARED = 4
"""Rows stand together where they share at least this part of the row that joins: attention is over all of them."""


@dataclass(frozen=True, slots=True)
class Trees:
    """G families of rows, each one sequence of length L in which rows go on from what they share.

    Attributes:
        ids, positions: (G, L).
        seen: (G, L, L) bool: what a column looks at. Padding looks at itself.
        rows, within: of each action token (N,), in the order of the rows: its family, and which of the family's `asked`
            predicts it.
        asked: columns (G, A) that predict an action token; spare places repeat the first.
        first: of each row (R,) the place of its first action token among the N.
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    rows: Tensor
    within: Tensor
    asked: Tensor
    first: Tensor


def families(pairs: Sequence[Pair], longest: int) -> list[list[int]]:
    """Indices of rows by what they begin with, each row in one family; in a family in lexicographic order.

    Args:
        longest: most tokens of a family, unless a row alone has more.
    """
    read = [_read(pair) for pair in pairs]
    found: list[list[int]] = []
    held, before = 0, tuple[int, ...]()
    for i in sorted(range(len(pairs)), key=read.__getitem__):
        shared = common(before, read[i])
        more = len(read[i]) - shared
        if found and shared >= SHORTEST and shared * SPARED >= len(read[i]) and held + more <= longest:
            found[-1].append(i)
            held += more
        else:
            found.append([i])
            held = len(read[i])
        before = read[i]
    return found


def length(pairs: Sequence[Pair]) -> int:
    """Tokens that a family in its order is laid out in."""
    total, before = 0, tuple[int, ...]()
    for pair in pairs:
        total += len(_read(pair)) - common(before, _read(pair))
        before = _read(pair)
    return total


def lay_out(pairs: Sequence[Pair], grouped: Sequence[Sequence[int]]) -> Trees:
    """Lay families out.

    Args:
        grouped: as `families` gives it.
    """
    width = max(length([pairs[i] for i in family]) for family in grouped)
    ids, positions = (np.zeros((len(grouped), width), dtype=np.int64) for _ in range(2))
    seen = np.zeros((len(grouped), width, width), dtype=bool)
    seen[:, np.arange(width), np.arange(width)] = True
    asked: list[list[int]] = []
    places: dict[int, tuple[int, int]] = {}
    for g, family in enumerate(grouped):
        end, before, columns = 0, tuple[int, ...](), np.zeros(0, dtype=np.int64)
        asked.append([])
        for i in family:
            own = _read(pairs[i])
            shared = common(before, own)
            new = np.arange(end, end + len(own) - shared)
            columns = np.concatenate([columns[:shared], new])
            ids[g, new] = own[shared:]
            positions[g, new] = np.arange(shared, len(own))
            seen[g, new[:, None], columns[None, :shared]] = True
            seen[g, new[:, None], new[None]] = np.tri(len(new), dtype=bool)
            places[i] = g, len(asked[-1])
            asked[-1] += columns[len(pairs[i][0]) - 1 :].tolist()
            end, before = end + len(new), own
    counts = [len(pairs[i][1]) for i in range(len(pairs))]
    rows = np.repeat([places[i][0] for i in range(len(pairs))], counts)
    within = np.concatenate([places[i][1] + np.arange(count) for i, count in enumerate(counts)])
    most = max(map(len, asked))
    padded = np.array([each + [each[0]] * (most - len(each)) for each in asked])
    first = np.cumsum(counts) - counts
    return Trees(*map(torch.from_numpy, (ids, positions, seen, rows, within, padded, first)))


def _read(pair: Pair) -> tuple[int, ...]:
    """What is read of a row: its last token predicts nothing."""
    return (*pair[0], *pair[1][:-1])
