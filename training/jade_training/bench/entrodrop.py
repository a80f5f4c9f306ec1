"""What hiding tokens does to a warm start on few demonstrations and many epochs, by how uncertain the tokens are.

The start is jade-tiny-hasty, taught the searching roles for a moment; what it learns are 24, 100 or 400 demonstrations
of them. Held-out tokens are of two classes: those that the start expected (entropy below the median) and the others.

Invariant: all arms of a seed and size take the same steps over the same demonstrations in the same order; what is
hidden is all that differs. What was measured is written down at once, and the same call goes on from it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jade_graph.bench.rollout import one_thread
from jade_training.bench.kept import Kept
from jade_training.bench.mix import Lab, parts
from jade_training.pretrain.batches import Row, encode
from jade_training.supervised.entrodrop import EntroDrop
from jade_training.supervised.sft import encoded, sft

if TYPE_CHECKING:
    from jade_training.supervised.demonstrations import Demonstration

STEPS = {24: 120, 100: 200, 400: 400}
"""Optimiser steps for each number of demonstrations: 60, 24 and 12 epochs."""
ARMS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "decay": {"weight_decay": 0.1},
    "entrodrop": {"entrodrop": EntroDrop()},
    "uniform": {"entrodrop": EntroDrop(of="all")},
    "strong": {"entrodrop": EntroDrop(gmax=0.9, q=0.75)},
    "strong_uniform": {"entrodrop": EntroDrop(gmax=0.9, q=0.75, of="all")},
}
"""No regularisation; weight decay; EntroDrop and uniform dropout that hides as many tokens, mild and strong."""
_ROWS, _LOOKS, _HELD_OUT = 12, 8, 150


def run(*, seeds: int = 3, sizes: str = "24,100,400", quick: bool = False, out: str | None = None) -> dict[str, float]:
    """Held-out loss of each arm, at its best and at the end.

    Args:
        seeds: of demonstrations, order and what is hidden.
        sizes: numbers of demonstrations, of 24, 100 and 400.
        quick: one seed, one size, a few steps.
        out: a folder: the same call goes on from what stands there.

    Returns:
        For each size N and arm: `best_N_ARM`, the least mean held-out loss of eight looks, nats an action token;
        `final_N_ARM`, `final_high_N_ARM`, `final_low_N_ARM` at the end, of all tokens, of those that the start was
        unsure of and of the others (means over seeds); `gain_N_ARM`, what the end has less than without
        (`final_N_none` minus it), and `gain_least_N_ARM`, in the worst seed. `best_high_N_ARM`: at the best look.
    """
    chosen = [24] if quick else [int(n) for n in sizes.split(",")]
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    with one_thread():
        for seed in range(1 if quick else seeds):
            kept = Kept(None if out is None else Path(out) / f"seed-{seed}.jsonl", {"steps": STEPS, "rows": _ROWS})
            bench = _Bench(seed, quick)
            for size in chosen:
                for arm in ARMS:
                    scores = kept.get((size, arm), partial(bench.measure, size, arm))
                    found.setdefault((size, arm), []).append(scores)
    figures: dict[str, float] = {}
    for (size, arm), rows in found.items():
        for name in ("best", "final", "best_high", "final_high", "final_low"):
            figures[f"{name}_{size}_{arm}"] = statistics.fmean(row[name] for row in rows)
        gains = [base["final"] - row["final"] for base, row in zip(found[size, "none"], rows, strict=True)]
        figures[f"gain_{size}_{arm}"] = statistics.fmean(gains)
        figures[f"gain_least_{size}_{arm}"] = min(gains)
    if out is not None:
        (Path(out) / "entrodrop.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return figures


class _Bench:
    """One seed: a start, demonstrations to learn from and to be measured by; made when the first is measured."""

    def __init__(self, seed: int, quick: bool) -> None:
        self.seed, self.quick = seed, quick

    @cached_property
    def lab(self) -> Lab:
        warm, pool = (1, 60) if self.quick else (60, 600)
        return Lab(self.seed, warm=warm, steps=0, rate=0.0, pool=pool, held_out=1)

    @cached_property
    def shown(self) -> list[Demonstration]:
        return self._searching(11_000 + self.seed, 24 if self.quick else max(STEPS))

    @cached_property
    def held_out(self) -> list[Row]:
        shown = self._searching(13_000 + self.seed, 20 if self.quick else _HELD_OUT)
        return [row for d in shown for row in encode(self.lab.tokenizer, [d])]

    @cached_property
    def high(self) -> torch.Tensor:
        """Of every held-out action token, whether the start was less sure of it than of half of them."""
        self.lab.model.load_state_dict(self.lab.start)
        entropy = torch.cat([-(log.exp() * log).sum(-1) for log, _, _ in self.lab.expected(self.held_out)])
        return entropy > entropy.median()

    def _searching(self, seed: int, count: int) -> list[Demonstration]:
        """Half summaries of what was found, half the other searching roles, mixed, so that any first N are both."""
        found = parts(self.lab.tokenizer, seed, (count + 1) // 2)
        return [d for pair in zip(found["evidence"], found["searching"], strict=True) for d in pair][:count]

    def look(self) -> dict[str, float]:
        """The model's held-out loss as it stands: of all tokens, and by class."""
        expected = self.lab.expected(self.held_out)
        losses = torch.cat([-log.gather(-1, ids[:, None])[:, 0] for log, ids, _ in expected])
        high = self.high
        return {"all": float(losses.mean()), "high": float(losses[high].mean()), "low": float(losses[~high].mean())}

    def measure(self, size: int, arm: str) -> dict[str, float]:
        """Learn `size` demonstrations as the arm does."""
        model, _ = self.lab.model, self.high  # told by the start, before anything is learned
        model.load_state_dict(self.lab.start)
        steps = 4 if self.quick else STEPS[size]
        looks: list[dict[str, float]] = [self.look()]

        def log(_: Mapping[str, float], step: int) -> None:
            if step * _LOOKS % steps == 0:
                looks.append(self.look())

        examples = encoded(self.lab.tokenizer, self.shown[:size])
        given = dict(ARMS[arm])
        sft(
            model, examples, tokenizer=self.lab.tokenizer, steps=steps, batch_rows=_ROWS, learning_rate=1e-3, log=log,
            seed=self.seed, device="cpu", **given,
        )  # fmt: skip
        end, best = self.look(), min(looks, key=lambda seen: seen["all"])
        self.lab.tell(f"{size} demonstrations, {arm}: best {best['all']:.3f}, at the end {end['all']:.3f}")
        return {
            "start": looks[0]["all"], "best": best["all"], "best_high": best["high"], "final": end["all"],
            "final_high": end["high"], "final_low": end["low"],
        }  # fmt: skip


__all__ = ["ARMS", "STEPS", "run"]
