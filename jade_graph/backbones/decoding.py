"""The decode loop: jobs join a batch between any two steps, and each gets its completion as soon as its row ends.

Invariant: a row ends at an end token, at its own `max_new_tokens`, at a number that is not finite or at its
cancellation, and leaves the batch there; what is recorded is what was drawn, one log-probability per token id, by the
job's own parameters, seed and age in tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jade_graph.backbones.batcher import Job, Signals, Stats
from jade_graph.backbones.forward import Session
from jade_graph.backbones.sampler import Sampler, move_rows, stack_rows
from jade_graph.backbones.watching import Drawn, Outbox
from jade_graph.errors import BackboneError
from jade_graph.types import Completion, FinishReason


@dataclass(slots=True)
class _Row:
    """A job in the batch, since `started` (on the clock of `time.perf_counter`)."""

    job: Job
    started: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How token ids become completions."""

    eos_token_ids: Sequence[int]
    text: Callable[[Sequence[int]], str]
    version: str


class _Table:
    """What the rows have drawn: their tokens, log-probabilities, ages (tokens so far) and limits."""

    def __init__(self, device: torch.device) -> None:
        self.ids = torch.zeros(0, 0, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(0, 0, dtype=torch.float32, device=device)
        self.ages = torch.zeros(0, dtype=torch.long, device=device)
        self.limits = torch.zeros(0, dtype=torch.long, device=device)

    def join(self, limits: Sequence[int]) -> None:
        shape, device = (len(limits), max(limits)), self.ids.device
        self.ids = stack_rows(self.ids, torch.zeros(shape, dtype=torch.long, device=device))
        self.logprobs = stack_rows(self.logprobs, torch.zeros(shape, dtype=torch.float32, device=device))
        self.ages = torch.cat([self.ages, torch.zeros(len(limits), dtype=torch.long, device=device)])
        self.limits = torch.cat([self.limits, torch.tensor(limits, device=device)])

    def write(self, tokens: Tensor, drawn: Tensor) -> None:
        column = self.ages.unsqueeze(1)
        self.ids.scatter_(1, column, tokens.unsqueeze(1))
        self.logprobs.scatter_(1, column, drawn.unsqueeze(1))
        self.ages += 1

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        for name in ("ids", "logprobs", "ages", "limits"):
            setattr(self, name, move_rows(getattr(self, name), holes, movers, count))


def decode(
    jobs: Sequence[Job],
    session: Session,
    *,
    ending: Ending,
    cap: int,
    device: torch.device,
    signals: Signals,
    stats: Stats,
    current: Callable[[], bool] = lambda: True,
) -> None:
    """Decode `jobs`, and those that join while any of them is under way, and resolve each as it ends.

    Args:
        session: empty; whether it is `open` says whether jobs may join later.
        cap: most rows at any time.
        current: whether jobs may still join. A batch that may not goes on with what it has to its end.

    Returns early, with jobs unresolved, only when `signals.stopping` is set. Raises whatever the model raises.
    """
    live: list[_Row] = []
    sampler: Sampler | None = None
    table = _Table(torch.device("cpu") if device.type == "mps" else device)
    ends = torch.tensor(list(ending.eos_token_ids), device=table.ids.device)
    seen = -1  # who was cancelled since leaving the queue is noticed after the first step
    parts: list[Tensor] = []
    watched, outbox = False, Outbox()
    while True:
        if jobs:
            padded = session.padded_tokens
            now = time.perf_counter()
            live += [_Row(job, now) for job in jobs]
            watched = watched or any(job.watching is not None for job in jobs)
            samplings = [job.sampling for job in jobs]
            limits = [sampling.max_new_tokens for sampling in samplings]
            parts.append(session.admit([job.prompt for job in jobs], limits))
            table.join(limits)
            if sampler is None:
                sampler = Sampler(samplings, device)
            else:
                sampler.join(samplings)
            stats.prompt_tokens += sum(len(job.prompt) for job in jobs)
            stats.padded_tokens += session.padded_tokens - padded
        assert sampler is not None
        tokens, drawn = sampler.draw(parts[0] if len(parts) == 1 else torch.cat(parts), table.ages)
        stats.steps += 1
        stats.row_steps += len(live)
        table.write(tokens, drawn)
        stopped = torch.isin(tokens, ends)
        finite = drawn.isfinite()
        if watched:
            outbox.put(_heard(live, tokens, table.ages, stopped))
        leaving = (stopped | (table.limits <= table.ages) | ~finite).nonzero().flatten().tolist()
        for row in leaving:
            finish: FinishReason = "stop" if bool(stopped[row]) else "length"
            _resolve(live[row], table, row, finish, ending)
        if signals.stopping:
            return
        if signals.cancellations != seen:
            seen = signals.cancellations
            gone = set(leaving)
            withdrawn = [row for row, each in enumerate(live) if row not in gone and each.job.future.cancelled()]
            stats.cancelled += len(withdrawn)
            leaving = sorted(leaving + withdrawn)
        if leaving:
            if not bool(finite.all()):
                session.wipe((~finite).nonzero().flatten().tolist())
            live, holes, movers = _plan_moves(live, leaving, table.ids.device)
            for part in (sampler, session, table):
                part.drop(holes, movers, len(live))
            tokens = move_rows(tokens, holes, movers, len(live))
            watched = watched and any(each.job.watching is not None for each in live)
        if not live:  # whoever comes now may come after a change of the weights, which nothing kept may outlive
            return
        jobs = signals.take(cap - len(live)) if signals.waiting and session.open and current() else []
        parts = [session.step(tokens)]


def _plan_moves(live: list[_Row], leaving: list[int], device: torch.device) -> tuple[list[_Row], Tensor, Tensor]:
    """Keep the rest at the front with the fewest moves: the last rows fill the holes that leaving ones make."""
    gone = set(leaving)
    count = len(live) - len(gone)
    holes = [row for row in leaving if row < count]
    movers = [row for row in range(count, len(live)) if row not in gone]
    for hole, mover in zip(holes, movers, strict=True):
        live[hole] = live[mover]
    return live[:count], torch.tensor(holes, device=device).long(), torch.tensor(movers, device=device).long()


def _heard(live: Sequence[_Row], tokens: Tensor, ages: Tensor, stopped: Tensor) -> list[Drawn]:
    """What those who watch a row are to hear: its new token, unless it is the end."""
    drawn, places, ended = torch.stack([tokens, ages, stopped.to(tokens.dtype)]).tolist()
    watching = ((row, each.job.watching) for row, each in enumerate(live))
    return [(w, places[row] - 1, drawn[row]) for row, w in watching if w is not None and not ended[row]]


def _resolve(row: _Row, table: _Table, number: int, finish: FinishReason, ending: Ending) -> None:
    job, length = row.job, int(table.ages[number])
    tokens = table.ids[number, :length].tolist()
    values = table.logprobs[number, :length].tolist()
    if not all(map(math.isfinite, values)):
        job.fail(
            BackboneError(
                f"the model {ending.version!r} gave a log-probability that is not finite.",
                code="BACKBONE_NOT_FINITE",
                hint='dtype="float32"',
            )
        )
        return
    now = time.perf_counter()
    job.resolve(
        Completion(
            text=ending.text(tokens[:-1] if finish == "stop" else tokens),
            token_ids=tuple(tokens),
            logprobs=tuple(values),
            finish_reason=finish,
            model_version=ending.version,
            queue_ms=1000 * (row.started - job.submitted),
            model_ms=1000 * (now - row.started),
        )
    )
