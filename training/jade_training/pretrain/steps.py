"""The optimiser's steps: shared by the training proper, its later stages and the searching roles.

Invariant: weights, optimiser state, rows and rates alone decide what comes out; whoever watches changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jade_training.pretrain.batches import Row
from jade_training.pretrain.loss import backward


@dataclass(frozen=True, slots=True)
class Progress:
    """After one step. `loss` in nats per action token, `seconds` since this process began to train."""

    step: int
    steps: int
    phase: str
    loss: float
    rate: float
    tokens: int
    seconds: float


def optimizer_of(model: Any, weight_decay: float) -> Any:
    """AdamW over all parameters. `take` sets the rate of every step."""
    import torch

    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=weight_decay)


def take(
    model: Any,
    optimizer: Any,
    rows_of: Callable[[int], Sequence[Row]],
    rate: Callable[[int], float],
    *,
    steps: int,
    clip: float,
    bf16: bool,
    guide: Callable[[int], float] | None = None,
    span: range | None = None,
    phase: str | Callable[[int], str],
    progress: Callable[[Progress], None] | None = None,
    after: Callable[[int], None] | None = None,
) -> tuple[int, float]:
    """Take steps, in place. Returns the tokens read, and the last loss (nan without a step).

    Args:
        rows_of, rate, guide, phase: rows, learning rate, weight of the guidance loss and title of each step.
        steps: of the whole training; `span`: those to take now (None: all).
        clip: greatest norm of the gradient.
        after: called with the number of steps done, before `progress`.
    """
    import torch

    began, tokens, loss = time.monotonic(), 0, float("nan")
    model.train()
    for step in range(steps) if span is None else span:
        rows, now = rows_of(step), rate(step)
        for group in optimizer.param_groups:
            group["lr"] = now
        optimizer.zero_grad(set_to_none=True)
        loss, _ = backward(model, rows, bf16=bf16, guide=guide(step) if guide else 0.0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        tokens += sum(r.length for r in rows)
        if after is not None:
            after(step + 1)
        if progress is not None:
            named = phase if isinstance(phase, str) else phase(step)
            progress(Progress(step + 1, steps, named, loss, now, tokens, time.monotonic() - began))
    return tokens, loss
