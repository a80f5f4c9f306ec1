"""MergeMix (arXiv 2601.17858): the shares of a data mixture, searched by merging experts.

    Theta(a) = Theta_base + sum_k a_k (Theta_k - Theta_base),  a on the simplex

Experts trained from one base on one part of the data each, at a constant rate and briefly, are merged at points that
fill the simplex; each merge is scored; a regressor for each capability predicts the rest; the best predicted shares are
verified by a real merge and stand for the shares of the data, for weights and data mix alike to first order.

Invariant: every score is of a merge that was really made; it is written down when it is known, and the same call goes
on from what is written. How far the experts have moved is told: above `DRIFT` of the base's norm the first order is no
longer all.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.errors import ConfigError, UsageError
from jade_graph.settings.lines import Growing
from jade_training.merging.merge import merge
from jade_training.merging.parents import Parent
from jade_training.mixing.simplex import design
from jade_training.mixing.surface import Surface

Score = Callable[[Path], Mapping[str, float]]
"""The capabilities of a model folder; larger is better."""
DRIFT = 0.1
ROWS, RESULT = "merges.jsonl", "search.json"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        shares: the best, by expert.
        predicted, verified: their capabilities as the regressors expect them, and as a real merge has them.
        utility: of the verified merge and of the best merge of the design, from 0 to 1 for each capability's range.
        drift: of each expert: the norm of what it changed over that of the base.
        scored: every merge of the design: shares and capabilities.
        surface: what was fitted to them.
    """

    shares: dict[str, float]
    predicted: dict[str, float]
    verified: dict[str, float]
    utility: dict[str, float]
    drift: dict[str, float]
    scored: list[dict[str, Any]]
    surface: Surface = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "shares": self.shares, "predicted": self.predicted, "verified": self.verified, "utility": self.utility,
            "drift": self.drift, "scored": self.scored,
        }  # fmt: skip


def search(
    base: Parent,
    experts: Mapping[str, Parent],
    score: Score,
    out: Path,
    *,
    budget: int = 40,
    weights: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> Found:
    """Search the shares of the experts' data.

    Args:
        score: measures a model folder.
        out: merges.jsonl and search.json; the best merge stays in `out/best`.
        budget: merges that are scored, the verification included.
        weights: of the capabilities in the utility; None: their plain mean.
        facts: what else decides the scores; the folder of another search is refused.

    Raises:
        UsageError: MIX_EXPERTS (fewer than two, or a budget that does not reach the corners), MERGE_DIFFERS,
            UNKNOWN_CAPABILITY, BAD_WEIGHTS. ConfigError: MIX_CHANGED.
    """
    names = list(experts)
    if len(names) < 2 or budget < len(names) + 2:
        raise UsageError(
            f"{len(names)} experts and {budget} merges are no search.",
            code="MIX_EXPERTS",
            hint="two experts or more, and a budget of 10 for each",
        )
    drifts = {name: drift(base.folder, expert.folder) for name, expert in experts.items()}
    points = design(len(names), budget - 1, seed)
    kept = _kept(out, {"base": base.content, "experts": {n: e.content for n, e in experts.items()}, "seed": seed,
                       "budget": budget, **(facts or {})})  # fmt: skip
    for i in range(len(kept.rows), len(points)):
        scores = _scored(experts, points[i], score, out / "merge")
        kept.add({"shares": dict(zip(names, map(float, points[i]), strict=True)), "scores": dict(scores)})
        if tell is not None:
            tell(i + 1, budget)
    rows = kept.rows
    capabilities = list(rows[0]["scores"])
    surface = Surface(points, {c: [row["scores"][c] for row in rows] for c in capabilities}, seed=seed)
    at = surface.best(weights, seed=seed)
    shutil.rmtree(out / "best", ignore_errors=True)
    verified = _scored(experts, at, score, out / "best", keep=True)
    if tell is not None:
        tell(budget, budget)
    predicted = {c: float(v[0]) for c, v in surface.predict(at[None]).items()}
    utilities = {
        "verified": float(surface.utility({c: verified[c] for c in capabilities}, weights)),
        "predicted": float(surface.utility(predicted, weights)),
        "best scored": max(float(surface.utility(row["scores"], weights)) for row in rows),
        "middle": float(surface.utility(rows[len(names)]["scores"], weights)),
    }
    shares = dict(zip(names, map(float, at), strict=True))
    found = Found(shares, predicted, dict(verified), utilities, drifts, rows, surface)
    (out / RESULT).write_text(json.dumps(found.as_dict(), indent=1) + "\n", "utf-8")
    return found


def _scored(
    experts: Mapping[str, Parent], point: Iterable[float], score: Score, folder: Path, *, keep: bool = False
) -> Mapping[str, float]:
    """The capabilities of sum_k a_k Theta_k: with shares that sum to 1 the base has no weight of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    shares = [float(a) for a in point]
    merge(list(experts.values()), [a / math.fsum(shares) for a in shares], folder)
    try:
        return {name: float(value) for name, value in score(folder).items()}
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def drift(base: Path, other: Path) -> float:
    """||other - base|| / ||base|| over all weights, in float64."""
    from jade_graph.backbones.contents import require_whole
    from jade_training.merging.linear import Files, stored

    ours, theirs = stored(require_whole(base)), stored(require_whole(other))
    moved = norm = 0.0
    with Files() as files:
        for name in ours.keys() & theirs.keys():
            a, b = files.whole(ours[name]), files.whole(theirs[name])
            if a.is_floating_point() and a.shape == b.shape:
                moved += float((b.double() - a.double()).square().sum())
                norm += float(a.double().square().sum())
    return math.sqrt(moved / norm) if norm else 0.0


def _kept(out: Path, facts: Mapping[str, Any]) -> Growing:
    """The merges that were scored before. Raises `ConfigError` MIX_CHANGED."""
    changed = ConfigError(
        f"{str(out)!r} holds another search.",
        code="MIX_CHANGED",
        hint="another --out folder: nothing is written over",
    )
    return Growing(out / ROWS, {"search": facts}, lambda _: changed)


__all__ = ["DRIFT", "Found", "drift", "search"]
