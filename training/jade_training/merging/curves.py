"""Coefficients of a merge from the decay of the learning rate that it stands for (WSM, arXiv 2507.17634, theorem 3.1).

Invariant: coefficients are not negative and sum to 1; checkpoints are counted from the oldest.

With checkpoints theta_0 .. theta_k of a run and w_i the factor that a decayed run would have put on the updates between
theta_(i-1) and theta_i, 1 >= w_1 >= .. >= w_k >= 0:

    sum_j c_j theta_j = theta_0 + sum_i w_i (theta_i - theta_(i-1)),
    c_k = w_k,  c_j = w_j - w_(j+1) for 1 <= j < k,  c_0 = 1 - w_1.

That is exact for the updates that were made, whatever the optimiser. A run that had really decayed would have made
other updates, as its gradients would have been those of other weights: it is equal only where gradients do not depend
on them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jade_graph.errors import UsageError, unknown

_CURVES: Mapping[str, Callable[[int, int], float]] = {
    "linear": lambda i, k: 1.0 - i / (k + 1),
    "1-sqrt": lambda i, k: 1.0 - math.sqrt(i / (k + 1)),
    "cosine": lambda i, k: 0.5 * (1.0 + math.cos(math.pi * i / (k + 1))),
    "inverse-sqrt": lambda i, _: 1.0 / math.sqrt(1 + i),
    # a = 1 - 2 / (n + 1), the span of an average over n checkpoints.
    "ema": lambda i, k: 1.0 - (k / (k + 2)) ** (k - i + 1),
}
DECAYS = tuple(_CURVES)
"""Names of decays: "linear" is the plain mean; "1-sqrt" is the paper's best; "ema" an exponential moving average."""


@dataclass(frozen=True, slots=True)
class Window:
    """The last `size` checkpoints of a run, merged by a decay: `1-sqrt:8`."""

    decay: str
    size: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Raises `UsageError` BAD_MERGE, UNKNOWN_DECAY."""
        decay, colon, size = text.partition(":")
        if not colon or not size.strip().isdigit() or int(size) < 2:
            raise UsageError(
                f"{text!r} is no decay with a number of checkpoints from 2.", code="BAD_MERGE", hint="--merge 1-sqrt:8"
            )
        decay_weights(decay.strip(), int(size) - 1)
        return cls(decay.strip(), int(size))

    def __str__(self) -> str:
        return f"{self.decay}:{self.size}"

    def coefficients(self, checkpoints: int) -> tuple[float, ...]:
        """Of the last checkpoints, when there are so many (fewer than `size` at the start of a run)."""
        return coefficients(decay_weights(self.decay, min(checkpoints, self.size) - 1))


def decay_weights(decay: str, k: int) -> tuple[float, ...]:
    """w_1 .. w_k of a named decay, or of "1,.7,.2" (k numbers that do not rise, from 1 to 0).

    Raises `UsageError` UNKNOWN_DECAY, BAD_DECAY.
    """
    if decay in _CURVES:
        return tuple(_CURVES[decay](i, k) for i in range(1, k + 1))
    if "," not in decay and not _number(decay):
        raise unknown("decay", decay, (*DECAYS, "1,.7,.2"), code="UNKNOWN_DECAY")
    texts = [part.strip() for part in decay.split(",")]
    weights = tuple(float(text) for text in texts if _number(text))
    falls = all(1 >= a >= b >= 0 for a, b in itertools.pairwise((1.0, *weights)))
    if len(weights) != len(texts) or len(weights) != k or not falls:
        raise UsageError(
            f"{decay!r} are not {k} numbers from 1 to 0 of which none is above the one before: one for each step "
            f"between {k + 1} checkpoints, the oldest first.",
            code="BAD_DECAY",
            known=DECAYS,
            hint="--decay 1-sqrt, or numbers such as .9,.6,.3",
        )
    return weights


def coefficients(weights: Sequence[float]) -> tuple[float, ...]:
    """c_0 .. c_k of w_1 .. w_k: what each checkpoint weighs, the oldest first."""
    steps = (1.0, *weights, 0.0)
    return tuple(before - after for before, after in itertools.pairwise(steps))


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


__all__ = ["DECAYS", "Window", "coefficients", "decay_weights"]
