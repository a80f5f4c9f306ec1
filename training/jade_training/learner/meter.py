"""What an update reports, summed while it runs.

Invariant: measuring changes nothing: sums are kept on the device of the weights and read once a mini-batch. Every mean
is over the whole update, weighted by tokens, never a mean of means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jade_training.learner.advantages import Estimate
from jade_training.learner.rows import Row

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run

_SUMS = ("tokens", "ratio", "clipped", "kl", "drift", "reference", "policy", "value", "plans", "replay", "bank", "read",
         "row_tokens", "computed")  # fmt: skip


class Meter:
    """Sums over the steps of one update.

    Attributes:
        steps: optimiser steps taken.
        gradient_rows, gradient_tokens: rows, and tokens of actions and compared plans, that these steps learned from.
        read: tokens (prompts too, padding not) that gradient passes read.
        stopped: whether `target_kl` ended the update.
    """

    def __init__(self, roles: Sequence[str] = ()) -> None:
        self.roles = list(roles)
        self.steps = self.gradient_rows = self.gradient_tokens = self.read = 0
        self.stopped = False
        self.norms: list[tuple[float, float]] = []
        self.highest = 0.0
        self._total = dict.fromkeys(_SUMS, 0.0)
        self._entropy = np.zeros((2, len(self.roles)))
        self.open()

    def open(self) -> None:
        """Begin a mini-batch."""
        self._now: dict[str, Tensor] = {}
        self._top: list[Tensor] = []
        self._spread: Tensor | None = None

    def _add(self, **sums: Tensor) -> None:
        for name, value in sums.items():
            value = value.detach().float()
            self._now[name] = self._now[name] + value if name in self._now else value.clone()

    def rows(
        self,
        *,
        new: Tensor,
        old: Tensor,
        reference: Tensor | None,
        log_ratio: Tensor,
        clipped: Tensor,
        entropy: Tensor,
        role: Tensor,
        policy: Tensor,
        value: Tensor,
        read: int,
        computed: int,
    ) -> None:
        """Take what a micro-batch of rows found; tensors are (N,), one number an action token, but the two losses."""
        difference = new - old
        self._add(
            tokens=torch.tensor(float(len(new)), device=new.device),
            ratio=log_ratio.exp().sum(),
            clipped=clipped.sum(),
            kl=(difference.exp() - 1 - difference).sum(),
            drift=difference.abs().sum(),
            policy=policy,
            value=value,
            read=torch.tensor(float(read), device=new.device),
            row_tokens=torch.tensor(float(read), device=new.device),
            computed=torch.tensor(float(computed), device=new.device),
        )
        if reference is not None:
            self._add(reference=(new - reference).sum())
        self._top.append(log_ratio.max())
        found = torch.zeros(2, len(self.roles), device=new.device)
        found[0].index_add_(0, role, entropy)
        found[1].index_add_(0, role, torch.ones_like(entropy))
        self._spread = found if self._spread is None else self._spread + found

    def held(self, kind: str, loss: Tensor, read: int) -> None:
        """Take the loss of a micro-batch of "plans", "replay" or "bank" pairs."""
        self._add(**{kind: loss, "read": torch.tensor(float(read), device=loss.device)})

    def sums(self) -> list[Tensor]:
        """This mini-batch's sums, for adding up over processes in place."""
        for name in _SUMS:
            self._now.setdefault(name, torch.zeros_like(next(iter(self._now.values()))))
        return [self._now[name] for name in _SUMS] + ([] if self._spread is None else [self._spread])

    def minibatch(self) -> dict[str, float]:
        """Of this mini-batch: "kl" = E[r - 1 - log r], an estimate of KL(pi_old || pi), and "drift" = E|log r|."""
        tokens = max(1.0, float(self._now.get("tokens", torch.ones(()))))
        return {name: float(self._now.get(name, torch.zeros(()))) / tokens for name in ("kl", "drift")}

    def close(self, norm: float, plan_norm: float, rows: int, tokens: int) -> None:
        """End a mini-batch that the optimisers stepped on, with the norms of their gradients."""
        for name, value in self._now.items():
            self._total[name] += float(value)
        if self._spread is not None:
            self._entropy += self._spread.cpu().numpy()
        self.highest = max([self.highest, *(float(t.exp()) for t in self._top)])
        self.steps += 1
        self.norms.append((norm, plan_norm))
        self.gradient_rows += rows
        self.gradient_tokens += tokens
        self.read = int(self._total["read"])
        self.open()

    def as_dict(self) -> dict[str, float]:
        """Means over the update."""
        t, tokens, steps = self._total, max(1.0, self._total["tokens"]), max(1, self.steps)
        norm, plan_norm = np.mean(self.norms, axis=0).tolist() if self.norms else (0.0, 0.0)
        found = {
            "ratio_mean": t["ratio"] / tokens,
            "ratio_max": self.highest,
            "clip_fraction": t["clipped"] / tokens,
            "kl_old": t["kl"] / tokens,
            "kl_reference": t["reference"] / tokens,
            "policy_loss": t["policy"] / steps,
            "value_loss": t["value"] / steps,
            "replay_nll": t["replay"] / steps,
            "bank_kl": t["bank"] / steps,
            "plan_loss": t["plans"] / steps,
            "grad_norm": norm,
            "plan_grad_norm": plan_norm,
            "steps": float(self.steps),
            "stopped_early": float(self.stopped),
            "gradient_rows": float(self.gradient_rows),
            "gradient_tokens": float(self.gradient_tokens),
            "tokens_read": float(self.read),
            "repeated_share": 1 - t["computed"] / t["row_tokens"] if t["row_tokens"] else 0.0,
        }
        for i, role in enumerate(self.roles):
            found[f"{role}/entropy"] = float(self._entropy[0, i] / max(1.0, self._entropy[1, i]))
        found["entropy"] = float(self._entropy[0].sum() / max(1.0, self._entropy[1].sum()))
        return found


def describe(
    meter: Meter,
    rows: Sequence[Row],
    runs: Sequence[Run],
    scored: Mapping[str, Scored],
    found: Estimate,
    values: Mapping[tuple[str, int], float] | None,
) -> dict[str, float]:
    """All figures of an update, by name.

    `reward` and `reward/TERM`: means over scored runs. `ROLE/rows`, `ROLE/advantage_mean` and `_std` (before whitening,
    in units of reward), `ROLE/entropy` (nats a token). `explained_variance`: 1 - Var(returns - values) / Var(returns).
    `ratio_mean` .. `kl_old`: pi against pi_old, over action tokens, as each mini-batch found it. `kl_reference`: mean
    log pi - log pi_ref (0 where `kl_coef` is). `repeated_share`: of the rows' tokens, those that were not computed
    because an earlier row begins with them too.
    """
    of = [scored[r.id] for r in runs if r.id in scored and scored[r.id].outcome is not None]
    terms: dict[str, float] = {}
    for score in of:
        for part in (score.outcome or {}, *score.actions):
            for name, value in part.items():
                terms[name] = terms.get(name, 0.0) + value
    metrics = {f"reward/{name}": total / len(of) for name, total in sorted(terms.items())}
    metrics["reward"] = sum(metrics.values())
    metrics |= {"rows": float(len(rows)), "runs": float(len(of)), "unscored": float(len(runs) - len(of))}
    names = np.array([r.role for r in rows])
    for role in meter.roles:
        own = found.raw[names == role]
        metrics |= {
            f"{role}/rows": float(len(own)),
            f"{role}/advantage_mean": float(own.mean()),
            f"{role}/advantage_std": float(own.std()),
        }
    if values is not None:
        errors = found.returns - np.array([values[r.run_id, r.seq] for r in rows])
        spread = float(found.returns.var())
        metrics["explained_variance"] = 1.0 - float(errors.var()) / spread if spread > 1e-12 else 0.0
    return metrics | meter.as_dict()


class Writer:
    """Appends metrics to `out/metrics.jsonl`, a line an update, and to the active MLflow run if asked."""

    def __init__(self, out: Path | None, *, mlflow: bool = False) -> None:
        self.path = None if out is None else out / "metrics.jsonl"
        self.mlflow = mlflow

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self.mlflow:
            import mlflow as library

            library.log_metrics(dict(metrics), step=step)
