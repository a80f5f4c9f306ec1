"""Points of a simplex: shares that are not negative and sum to 1.

Invariant: the same arguments give the same points; the corners and the middle come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

_POOL = 4096


def uniform(parts: int, count: int, seed: int) -> Points:
    """Points (count, parts) drawn uniformly: exponentials over their sum."""
    drawn = np.random.default_rng(seed).exponential(size=(count, parts))
    found: Points = drawn / drawn.sum(1, keepdims=True)
    return found


def design(parts: int, count: int, seed: int = 0) -> Points:
    """`count` points (count, parts) that fill the simplex: its corners, its middle, then each as far as can be from all
    before it (maximin), out of points drawn with the seed.
    """
    corners = [*np.eye(parts), np.full(parts, 1.0 / parts)]
    found = [np.asarray(point, dtype=np.float64) for point in corners[:count]]
    pool = uniform(parts, _POOL, seed)
    near = np.min([((pool - point) ** 2).sum(1) for point in found], axis=0)
    while len(found) < count:
        point = pool[int(near.argmax())]
        found.append(point)
        near = np.minimum(near, ((pool - point) ** 2).sum(1))
    return np.stack(found)


def grid(parts: int, steps: int) -> Points:
    """Every point whose shares are multiples of 1 / steps."""

    def cut(left: int, of: int) -> list[list[int]]:
        if of == 1:
            return [[left]]
        return [[first, *rest] for first in range(left + 1) for rest in cut(left - first, of - 1)]

    return np.asarray(cut(steps, parts), dtype=np.float64) / steps


__all__ = ["design", "grid", "uniform"]
