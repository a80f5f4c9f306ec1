"""What the planner learns from: the plans that were tried for a question, and what each came to.

Invariant: a comparison is made of recorded ids and outcomes alone, and holds whatever distribution drew the plans: no
probability of the past enters it. So comparisons can be remembered, and rare plans, explored ones, teach as much as
frequent ones.

For a question with tried plans j and expected outcomes R_j, the planner that maximises E[R] + eta H(plan) has
probabilities proportional to exp(R_j / eta) (maximum-entropy control: Ziebart 2010, section 5). So differences of its
log-probabilities, times eta, are differences of outcomes, and the loss is that regression (Gao et al. 2024, REBEL, with
the uniform prior; path consistency of one step: Nachum et al. 2017). It is linear in the outcomes before it is squared,
so its minimum is right however few runs stand for an R_j. The cross-entropy to exp(R_j / eta) is not: it believes the
luck of single runs. The policy gradient weighs a plan by its probability, and no longer sees one that has become rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jade_training.forward import Pair, Reader, distribution, pack
from jade_training.rows import PLANNER, Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question's plans.

    Attributes:
        question_id: whose.
        prompt: token ids (P,) that the planner read.
        plans: token ids of each distinct plan (K, ragged), K >= 2; with the end token.
        worth: mean outcome of the runs of each plan (K,), in units of reward.
        temperature: that plans are drawn at.
        update: in which it was recorded.
    """

    question_id: str
    prompt: tuple[int, ...]
    plans: tuple[tuple[int, ...], ...]
    worth: tuple[float, ...]
    temperature: float
    update: int

    @property
    def pairs(self) -> list[Pair]:
        return [(self.prompt, plan) for plan in self.plans]

    def length(self, shared: bool) -> int:
        """Tokens that a pass reads; `shared`: where it reads the prompt once (`Reader.fast`)."""
        return len(self.prompt) * (1 if shared else len(self.plans)) + sum(map(len, self.plans))

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Comparison:
        plans = tuple(map(tuple, told["plans"]))
        return cls(**{**told, "prompt": tuple(told["prompt"]), "plans": plans, "worth": tuple(told["worth"])})


def comparisons(rows: Sequence[Row], update: int) -> list[Comparison]:
    """The comparisons in the planner's rows: of what it wrote for the same prompt in the runs of a question.

    A root has the same prompt in all of them, a sub-question where it was worded alike. One plan alone gives none. What
    is no plan earned what the fallback did in its place, which is not to its credit: it is worth less than the worst.
    """
    asked: dict[tuple[str, tuple[int, ...]], dict[tuple[int, ...], list[Row]]]
    asked = defaultdict(lambda: defaultdict(list))
    for row in sorted((r for r in rows if r.role == PLANNER), key=lambda r: (r.question_id, r.run_id, r.seq)):
        asked[row.question_id, row.prompt][row.action].append(row)
    found: list[Comparison] = []
    for (question, _), tried in asked.items():
        if len(tried) < 2:
            continue
        first = next(iter(tried.values()))[0]
        worth = [float(np.mean([r.outcome + r.local for r in own])) for own in tried.values()]
        least = min(worth)
        for i, own in enumerate(tried.values()):
            if not own[0].valid:
                worth[i] = least + float(np.mean([r.local for r in own]))
        found.append(Comparison(question, first.prompt, tuple(tried), tuple(worth), first.temperature, update))
    return found


def regression_loss(
    reader: Reader, batch: Sequence[Comparison], eta: float, device: torch.device, mass: float = 0.0
) -> Tensor:
    """Sum over comparisons and their plans j of (eta (s_j - mean s) - (R_j - mean R))^2 / eta, s the policy's log pi.

    `mass` times -log sum_j pi_j is added: the differences alone are blind to the probability that all tried plans
    together lose to what is no plan.
    """
    packed = pack([pair for c in batch for pair in c.pairs], device)
    sizes = torch.tensor([len(c.plans) for c in batch], device=device)
    owner = torch.repeat_interleave(torch.arange(len(batch), device=device), sizes)
    temperature = torch.tensor([c.temperature for c in batch], device=device)[owner]
    logits = reader.actions([(c.prompt, c.plans) for c in batch], packed)
    logs = distribution(logits, temperature[packed.rows])
    tokens = logs.gather(-1, packed.targets[:, None]).squeeze(-1)
    scores = torch.zeros(len(owner), device=device).index_add(0, packed.rows, tokens)
    worth = torch.tensor([w for c in batch for w in c.worth], dtype=torch.float32, device=device)
    loss = (eta * _centred(scores, owner, sizes) - _centred(worth, owner, sizes)).square().sum() / eta
    return loss - mass * _log_sum(scores, owner, len(batch)).sum() if mass else loss


def _centred(numbers: Tensor, owner: Tensor, sizes: Tensor) -> Tensor:
    """Numbers (R,) less the mean of their group."""
    sums = torch.zeros(len(sizes), device=numbers.device).index_add(0, owner, numbers)
    return numbers - (sums / sizes)[owner]


def _log_sum(logits: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Log of the summed exponentials of each group (G,) of logits (R,)."""
    top = torch.full((groups,), -torch.inf, device=logits.device).scatter_reduce(0, owner, logits.detach(), "amax")
    return top + torch.zeros(groups, device=logits.device).index_add(0, owner, (logits - top[owner]).exp()).log()
