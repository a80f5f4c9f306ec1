"""A length penalty that knows what counts against one that does not, on a toy whose truth is known (SCMA).

Invariant: an answer needs 3 of 8 pieces of 20 tokens, and is right with probability .95 when all three are kept, else
never. A policy that keeps each piece by a coin of its own learns by REINFORCE; equal seeds give equal figures.
"""

from __future__ import annotations

import numpy as np

from jade_graph.scoring.compression import penalty

ESSENTIAL, REDUNDANT, TOKENS, RIGHT = 3, 5, 20, 0.95
LIMIT = 320
"""L_ref in tokens, twice the whole text. The essential pieces alone cost a uniform penalty alpha * 60 / 320: more than
they earn from alpha 5.1 on."""
ALPHAS = (0.3, 1.0, 3.0, 6.0)


def run(*, seeds: int = 5, steps: int = 1000, quick: bool = False) -> dict[str, float]:
    """Learn with both penalties at every alpha.

    Args:
        seeds: policies of each; seed i begins with the draws of seed i.
        steps: updates, of 32 texts each.
        quick: 2 seeds, alpha 3 and 6 alone.

    Returns:
        `accuracy_PENALTY_alpha_A` and `tokens_PENALTY_alpha_A`, means over the seeds of what the last policies do in
        expectation, PENALTY "weighted" or "uniform", A as in 0_3; `collapsed_PENALTY_alpha_A`, the seeds whose accuracy
        ended below half of what can be had.
    """
    seeds, alphas = (min(seeds, 2), ALPHAS[2:]) if quick else (seeds, ALPHAS)
    figures: dict[str, float] = {"seeds": float(seeds), "steps": float(steps)}
    for alpha in alphas:
        for name, weights in (("weighted", [5] * ESSENTIAL + [1] * REDUNDANT), ("uniform", [1] * 8)):
            ends = [learned(alpha, weights, seed, steps) for seed in range(seeds)]
            key = f"{name}_alpha_{alpha:g}".replace(".", "_")
            figures[f"accuracy_{key}"] = round(float(np.mean([a for a, _ in ends])), 4)
            figures[f"tokens_{key}"] = round(float(np.mean([n for _, n in ends])), 2)
            figures[f"collapsed_{key}"] = float(sum(a < RIGHT / 2 for a, _ in ends))
    return figures


def learned(alpha: float, weights: list[int], seed: int, steps: int, rate: float = 0.2) -> tuple[float, float]:
    """Accuracy and tokens, in expectation, of a policy that learned from R = right - alpha * Pen."""
    rng = np.random.default_rng(seed)
    logits = np.zeros(ESSENTIAL + REDUNDANT)
    costs = np.array([penalty([w], [TOKENS], LIMIT) for w in weights])
    for _ in range(steps):
        keep = 1 / (1 + np.exp(-logits))
        kept = rng.random((32, len(keep))) < keep
        right = kept[:, :ESSENTIAL].all(axis=1) & (rng.random(32) < RIGHT)
        rewards = right - alpha * kept @ costs
        others = (rewards.sum() - rewards) / (len(rewards) - 1)
        logits += rate * ((rewards - others)[:, None] * (kept - keep)).mean(axis=0)
    keep = 1 / (1 + np.exp(-logits))
    return float(RIGHT * keep[:ESSENTIAL].prod()), float(TOKENS * keep.sum())
