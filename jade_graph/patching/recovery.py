"""Recovery of a decision, and its interval over pairs.

Invariant: recovery = (mean LD_patched - mean LD_corrupt) / (mean LD_clean - mean LD_corrupt), over the same pairs, and
is never clipped: a site may give back more than all of it, or push the other way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from jade_graph.patching.pairs import same

Kind = Literal["resid", "attn", "mlp", "head"]
KINDS: tuple[Kind, ...] = ("resid", "attn", "mlp", "head")
EMBEDDING = -1
"""The layer of the residual stream before the first block."""
_RESAMPLES = 2000


class Site(NamedTuple):
    """A place of the model: `group` names positions, or a head ("0", "1" ..) at all positions."""

    kind: Kind
    layer: int
    group: str


class Cell(NamedTuple):
    """What patching one site gave back. `low`, `high`: 95 % over pairs; None for a single pair."""

    site: Site
    recovery: float
    low: float | None
    high: float | None


def recovery(patched: Sequence[float], clean: Sequence[float], corrupt: Sequence[float]) -> float:
    """The formula above. Raises `UsageError` LOOK_SAME where nothing is between clean and corrupt."""
    between = float(np.mean(clean) - np.mean(corrupt))
    if between == 0:
        raise same("the logit difference is the same of the clean and of the corrupted prompts")
    return float((np.mean(patched) - np.mean(corrupt)) / between)


def cells(
    patched: Mapping[Site, Sequence[float]], clean: Sequence[float], corrupt: Sequence[float], *, seed: int = 0
) -> tuple[Cell, ...]:
    """Every site's recovery, with intervals by a bootstrap over pairs (numerator and denominator together).

    Args:
        patched: site to one logit difference for each pair that has the site, None-free and in the order of `clean`.

    Raises:
        UsageError: LOOK_SAME.
    """
    n = len(clean)
    sites = list(patched)
    means = [recovery(patched[site], clean, corrupt) for site in sites]
    if n < 2:
        return tuple(Cell(site, mean, None, None) for site, mean in zip(sites, means, strict=True))
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    below = counts @ np.asarray(corrupt)
    between = counts @ (np.asarray(clean) - np.asarray(corrupt))
    values: npt.NDArray[np.float64] = np.asarray([patched[site] for site in sites], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (values @ counts.T - below) / between
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=1)
    return tuple(Cell(site, mean, float(a), float(b)) for site, mean, a, b in zip(sites, means, low, high, strict=True))
