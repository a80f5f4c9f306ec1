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
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jade_training.learner.logits import Pair, Reader, distribution, pack
from jade_training.learner.rows import PLANNER, Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question's plans.

    Attributes:
        question_id: whose.
        prompt: token ids (P,) that the planner read.
        plans: token ids of each distinct plan (K, ragged), K >= 2; with the end token.
        worth: mean outcome of the runs of each plan (K,), in units of reward.
        legal: whether each is a plan at all (K,); at least one is.
        temperature: that plans are drawn at.
        update: in which it was recorded.
        root: whether the question itself was planned for, not one that it was taken apart into.
    """

    question_id: str
    prompt: tuple[int, ...]
    plans: tuple[tuple[int, ...], ...]
    worth: tuple[float, ...]
    legal: tuple[bool, ...]
    temperature: float
    update: int
    root: bool = True

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
        told = {"legal": (True,) * len(plans), **told}
        parts = {name: tuple(told[name]) for name in ("prompt", "worth", "legal")}
        return cls(**{**told, **parts, "plans": plans})


def comparisons(rows: Sequence[Row], update: int) -> list[Comparison]:
    """The comparisons in the planner's rows: of what it wrote for the same prompt in the runs of a question.

    A root has the same prompt in all of them, a sub-question where it was worded alike. One plan alone gives none, nor
    does a prompt for which nothing legal was written. What is no plan earned what the fallback did in its place, which
    is not to its credit: it is worth less than the worst.

    A part's plan also answers for the rules that were broken in carrying it out: a decomposer that is given one step
    can only break one. A question's plan does not: while its executors learn, it would be given up.
    """
    asked: dict[tuple[str, tuple[int, ...]], dict[tuple[int, ...], list[Row]]]
    asked = defaultdict(lambda: defaultdict(list))
    for row in sorted((r for r in rows if r.role == PLANNER), key=lambda r: (r.question_id, r.run_id, r.seq)):
        asked[row.question_id, row.prompt][row.action].append(row)
    found: list[Comparison] = []
    for (question, _), tried in asked.items():
        first = next(iter(tried.values()))[0]
        legal = tuple(own[0].valid for own in tried.values())
        if len(tried) < 2 or not any(legal):
            continue
        worth = [float(np.mean([_worth(r) for r in own])) for own in tried.values()]
        least = min(w for w, valid in zip(worth, legal, strict=True) if valid)
        for i, own in enumerate(tried.values()):
            if not legal[i]:
                worth[i] = least + float(np.mean([r.local for r in own]))
        plans = tuple(tried)
        found.append(
            Comparison(question, first.prompt, plans, tuple(worth), legal, first.temperature, update, first.plans)
        )
    return found


def _worth(row: Row) -> float:
    return row.outcome + row.local + (0.0 if row.plans else row.caused)


class Noise:
    """Disturbs prompts: a share of their tokens is replaced by tokens of the others. What is learned is how questions
    are worded, not the names in each, by which outcomes that were luck could be known by heart.

    What all prompts begin and end with (a template, the role's mark) is kept.

    Args:
        found: the comparisons whose prompts are to be disturbed.
        share: of the tokens, 0 to 1.
    """

    def __init__(self, found: Sequence[Comparison], share: float) -> None:
        prompts = [c.prompt for c in found] if share else []
        self.share = share
        self._first, self._last = _alike(prompts), _alike([p[::-1] for p in prompts])
        self._others = np.array([t for p in prompts for t in p[self._first : len(p) - self._last]], dtype=np.int64)

    def __call__(self, c: Comparison, *seed: int) -> Comparison:
        """The comparison with its prompt disturbed, as `seed` says."""
        if not len(self._others):
            return c
        rng = np.random.default_rng(seed)
        prompt = np.array(c.prompt)
        struck = rng.random(len(prompt)) < self.share
        struck[: self._first] = struck[len(prompt) - self._last :] = False
        return replace(c, prompt=tuple(np.where(struck, rng.choice(self._others, len(prompt)), prompt).tolist()))


def _alike(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with."""
    apart = (i for i, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    return next(apart, min(map(len, prompts), default=0))


def regression_loss(
    reader: Reader, batch: Sequence[Comparison], eta: float, device: torch.device, mass: float = 0.0
) -> Tensor:
    """Sum over comparisons and their plans j of huber(r_j) / eta, r_j = eta (s_j - mean s) - (R_j - mean R).

    s is the policy's log-probability, the means are of legal plans. huber(r) is r^2 up to 1, then 2 |r| - 1, so that no
    single plan rules a mini-batch. What is no plan is only ever pushed down: there are too many such texts for each to
    be given its share. `mass` times -log of the probability of all tried legal plans together is added: the differences
    alone do not see it.
    """
    packed = pack([pair for c in batch for pair in c.pairs], device)
    owner = torch.repeat_interleave(
        torch.arange(len(batch), device=device), torch.tensor([len(c.plans) for c in batch], device=device)
    )
    temperature = torch.tensor([c.temperature for c in batch], device=device)[owner]
    logits = reader.actions([(c.prompt, c.plans) for c in batch], packed)
    logs = distribution(logits, temperature[packed.rows])
    tokens = logs.gather(-1, packed.targets[:, None]).squeeze(-1)
    scores = torch.zeros(len(owner), device=device).index_add(0, packed.rows, tokens)
    worth = torch.tensor([w for c in batch for w in c.worth], dtype=torch.float32, device=device)
    legal = torch.tensor([x for c in batch for x in c.legal], device=device)
    away = eta * _centred(scores, owner, legal, len(batch)) - _centred(worth, owner, legal, len(batch))
    away = torch.where(legal, away, away.clamp(min=0))
    loss = 2 * torch.nn.functional.huber_loss(away, torch.zeros_like(away), reduction="sum") / eta
    if mass:
        loss = loss - mass * _log_sum(scores[legal], owner[legal], len(batch)).sum()
    return loss


def _centred(numbers: Tensor, owner: Tensor, legal: Tensor, groups: int) -> Tensor:
    """Numbers (R,) less the mean of the legal ones in their group."""
    sums, counts = (
        torch.zeros(groups, device=numbers.device).index_add(0, owner[legal], part[legal])
        for part in (numbers, torch.ones_like(numbers))
    )
    return numbers - (sums / counts)[owner]


def _log_sum(logits: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Log of the summed exponentials of each group (G,) of logits (R,)."""
    top = torch.full((groups,), -torch.inf, device=logits.device).scatter_reduce(0, owner, logits.detach(), "amax")
    return top + torch.zeros(groups, device=logits.device).index_add(0, owner, (logits - top[owner]).exp()).log()
