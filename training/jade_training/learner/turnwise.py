"""Advantages of actions that are credited one by one, turn by turn: M-ASK's rewards, with other runs as the baseline.

Invariant: an action's reward is what `scoring.credit.assign` says of it, and its baseline is made of other runs
alone, so the policy gradient of that reward stays unbiased.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jade_graph.scoring import credit
from jade_training.learner.rows import Row

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run

Key = tuple[str, int]
"""Role and turn: what an action is compared on."""


def by_turn(rows: Sequence[Row], runs: Sequence[Run], scored: Mapping[str, Scored], mode: str) -> NDArray[np.float64]:
    """Advantages (R,): the reward of each row minus the mean reward of the same role in the same turn of other runs.

    Of the question's other runs where any came to that turn, else of all other runs of the batch; 0 where no other run
    did. The leave-one-out baseline is that of RLOO (Ahmadian et al. 2024), here for each turn instead of each run.

    Args:
        mode: one of `credit.TURN_MODES`.
    """
    rewards = {
        (t.run_id, t.seq): (t.reward, t.round)
        for run in runs
        if run.id in scored
        for t in credit.assign(run, scored[run.id], mode=mode)
        if t.reward is not None
    }
    same: dict[tuple[str, Key], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    every: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda r: (r.run_id, r.seq)):  # sorted: the same sums in whatever order the rows came
        reward, turn = rewards[row.run_id, row.seq]
        same[row.question_id, (row.role, turn)][row.run_id].append(reward)
        every[row.role, turn][row.run_id].append(reward)
    found = np.zeros(len(rows))
    for i, row in enumerate(rows):
        reward, turn = rewards[row.run_id, row.seq]
        key = (row.role, turn)
        for group in (same[row.question_id, key], every[key]):
            others = [x for run, own in group.items() if run != row.run_id for x in own]
            if others:
                found[i] = reward - float(np.mean(others))
                break
    return found
