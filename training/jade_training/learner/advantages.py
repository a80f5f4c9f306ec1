"""Advantages: how much better than expected each action was.

Invariant: pure functions of rows, runs and values in numpy, float64; no row's number depends on the order of the rows,
and no run's on another run but through a baseline or whitening that is named in the settings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jade_graph.scoring import credit
from jade_training.learner.ppo import PPOConfig, Whitening
from jade_training.learner.rows import Row
from jade_training.learner.turnwise import by_turn

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run

Array = NDArray[np.float64]
TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number a row, in the order of the rows.

    Attributes:
        raw: advantages in units of reward.
        advantages: `raw`, whitened as the settings say; what the policy loss uses.
        returns: what the value head regresses on (equals `raw` where there is no value head).
        weights: on each row's loss.
    """

    raw: Array
    advantages: Array
    returns: Array
    weights: Array


def estimate(
    rows: Sequence[Row],
    runs: Sequence[Run],
    scored: Mapping[str, Scored],
    config: PPOConfig,
    *,
    values: Mapping[tuple[str, int], float] | None = None,
    penalties: Array | None = None,
) -> Estimate:
    """Advantages, value targets and weights of the rows.

    Args:
        values: V by (run id, seq) of every learning action of these runs; needed by "gae".
        penalties: further rewards of each row's own (KL to the reference, say), or None.
    """
    if config.estimator == "gae":
        raw, returns = from_values(rows, runs, scored, config, values or {})
    elif config.credit in credit.TURN_MODES:
        raw = by_turn(rows, runs, scored, config.credit)
        returns = raw.copy()
    else:
        raw = branched(rows) if config.estimator == "tree" else grouped(rows, config.estimator)
        returns = raw.copy()
    if penalties is not None:
        raw = raw + penalties
    weights = row_weights(rows, config.role_weights, per_run=config.per_run_weighting)
    return Estimate(raw, whiten(raw, [r.role for r in rows], weights, config.whitening), returns, weights)


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> Array:
    """Generalised advantages of one episode that ended: see `scoring.credit.gae` (Schulman et al. 2016, eq. 16)."""
    return np.array(credit.gae(rewards, values, gamma, lam))


def from_values(
    rows: Sequence[Row],
    runs: Sequence[Run],
    scored: Mapping[str, Scored],
    config: PPOConfig,
    values: Mapping[tuple[str, int], float],
) -> tuple[Array, Array]:
    """Advantages and returns (R,) of rows, credited run by run by `jade_graph.scoring.credit.assign`."""
    found: dict[tuple[str, int], tuple[float, float]] = {}
    wanted = {r.run_id for r in rows}
    for run in runs:
        if run.id not in wanted:
            continue
        order = sorted(t.seq for t in run.transitions if t.learns)
        credited = credit.assign(
            run,
            scored[run.id],
            mode=config.credit,
            gamma=config.gamma,
            lam=config.lam,
            values=[values[run.id, seq] for seq in order] if values else None,
            inherit_penalties=config.inherit_penalties,
        )
        for t in credited:
            if t.advantage is not None and t.return_ is not None:
                found[t.run_id, t.seq] = t.advantage, t.return_
    pairs = np.array([found[r.run_id, r.seq] for r in rows], dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def grouped(rows: Sequence[Row], kind: str) -> Array:
    """Advantages (R,) from the other runs of the same question; a row's own terms are added afterwards.

    "rloo": outcome minus the mean of the others' (Ahmadian et al. 2024); "grpo": outcome minus the group's mean, over
    the group's std (Shao et al. 2024). A question with a single run is compared with all runs of the batch: there is
    nothing else to compare it with. Equal outcomes give 0.
    """
    outcomes: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        outcomes[row.question_id][row.run_id] = row.outcome
    everything = {run: value for group in outcomes.values() for run, value in group.items()}
    base = {
        run: _standing(run, group if len(group) > 1 else everything, kind)
        for group in outcomes.values()
        for run in group
    }
    return np.array([base[r.run_id] + r.local for r in rows], dtype=np.float64)


def branched(rows: Sequence[Row]) -> Array:
    """Advantages (R,) from the runs that part at the action: the plan against the question's other plans, what carries
    it out against the other runs of the same plan.

    A plan is worth the mean outcome of the runs that carry it out (one draw), and is compared with the mean of the
    other draws' worths, whatever they drew. A later action is compared with the mean outcome of the question's other
    runs with the same plan: a bad plan is not blamed on those who carried it out well, nor the reverse. Where there is
    nothing to compare with, 0. Both are leave-one-out baselines, which do not depend on the action (Kool et al. 2019;
    branches as in Tree-GRPO, Ji et al. 2025), so the policy gradient stays unbiased. A row's own terms are added.
    """
    runs: dict[str, dict[str, tuple[str, str, float]]] = defaultdict(dict)
    for row in rows:
        runs[row.question_id][row.run_id] = (row.draw, row.plan, row.outcome)
    standing: dict[tuple[str, bool], float] = {}
    for group in runs.values():
        draws: dict[str, dict[str, float]] = defaultdict(dict)
        plans: dict[str, dict[str, float]] = defaultdict(dict)
        for run in sorted(group):  # sorted: the same sums in whatever order the rows came
            draw, plan, outcome = group[run]
            draws[draw][run] = outcome
            plans[plan][run] = outcome
        worths = {draw: float(np.mean(list(outcomes.values()))) for draw, outcomes in sorted(draws.items())}
        for run, (draw, plan, _) in group.items():
            standing[run, True] = _standing(draw, worths, "rloo")
            standing[run, False] = _standing(run, plans[plan], "rloo")
    return np.array([standing[r.run_id, r.plans] + r.local for r in rows], dtype=np.float64)


def _standing(run: str, group: Mapping[str, float], kind: str) -> float:
    if len(group) < 2:
        return 0.0
    values = np.array(sorted(group.values()))  # sorted: the same sum in whatever order the rows came
    if kind == "rloo":
        return float(group[run] - (values.sum() - group[run]) / (len(values) - 1))
    deviation = values.std()
    return float((group[run] - values.mean()) / deviation) if deviation > TINY else 0.0


def whiten(raw: Array, roles: Sequence[str], weights: Array, how: Whitening) -> Array:
    """Advantages with weighted mean 0 and std 1 over the batch, or within each role.

    Weighted: the moments are those of the loss that the rows go into. Where all are equal (one row, say) they are 0.
    """
    if how == "none" or not len(raw):
        return raw.copy()
    names = np.array(roles) if how == "per_role" else np.zeros(len(raw))
    out = np.empty_like(raw)
    for name in np.unique(names):
        at = names == name
        w = weights[at] if weights[at].sum() > 0 else np.ones(at.sum())
        centred = raw[at] - np.average(raw[at], weights=w)
        deviation = np.sqrt(np.average(centred**2, weights=w))
        out[at] = centred / deviation if deviation > TINY else 0.0
    return out


def row_weights(rows: Sequence[Row], role_weights: Mapping[str, float], *, per_run: bool) -> Array:
    """Weights (R,): the rows' own, times their role's; with `per_run` each question's rows first share one vote.

    Votes are scaled to mean 1 over the rows, so that turning them on leaves the size of the loss.
    """
    weights = np.array([r.weight for r in rows], dtype=np.float64)
    if per_run and len(rows):
        counts: dict[str, int] = defaultdict(int)
        for row in rows:
            counts[row.question_id or row.run_id] += 1
        votes = np.array([1.0 / counts[r.question_id or r.run_id] for r in rows])
        weights *= votes / votes.mean()
    return weights * np.array([role_weights.get(r.role, 1.0) for r in rows], dtype=np.float64)
