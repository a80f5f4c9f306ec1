"""The decode loop: a batch of jobs in, a completion per job out, each as soon as its row ends.

Invariant: a row ends at an end token, at its own `max_new_tokens` or at its cancellation, and leaves the batch there;
what is recorded is what was drawn, one log-probability per token id. Per step the Python work does not grow with the
number of rows, constrained rows apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jade_graph.backbones.batcher import Job, Signals, Stats
from jade_graph.backbones.forward import Session
from jade_graph.backbones.sampler import Sampler, move_rows
from jade_graph.errors import BackboneError
from jade_graph.types import Completion, FinishReason


def decode(
    jobs: Sequence[Job],
    session: Session,
    *,
    eos_token_ids: Sequence[int],
    text: Callable[[Sequence[int]], str],
    version: str,
    device: torch.device,
    signals: Signals,
    stats: Stats,
) -> None:
    """Decode `jobs`, whose prompts `session` was made for, in the same order, and resolve each as it ends.

    Returns early, with jobs unresolved, only when `signals.stopping` is set. Raises whatever the model raises.
    """
    started = time.perf_counter()
    live = list(jobs)
    sampler = Sampler([job.sampling for job in live], device)
    limits = torch.tensor([job.sampling.max_new_tokens for job in live], device=sampler.device)
    ends = torch.tensor(list(eos_token_ids), device=sampler.device)
    ids = torch.zeros((len(live), int(limits.max())), dtype=torch.long, device=sampler.device)
    logprobs = torch.zeros(ids.shape, dtype=torch.float32, device=sampler.device)
    seen = signals.cancellations
    logits = session.prefill()
    stats.prompt_tokens += sum(len(job.prompt) for job in live)
    stats.padded_tokens += session.padded_tokens
    for step in range(ids.shape[1]):
        tokens, drawn = sampler.draw(logits, step)
        stats.steps += 1
        stats.row_steps += len(live)
        ids[:, step] = tokens
        logprobs[:, step] = drawn
        stopped = torch.isin(tokens, ends)
        leaving = (stopped | (limits <= step + 1)).nonzero().flatten().tolist()
        for row in leaving:
            finish: FinishReason = "stop" if bool(stopped[row]) else "length"
            _resolve(live[row], ids[row], logprobs[row], step + 1, finish, text, version, started)
        if signals.stopping:
            return
        if signals.cancellations != seen:
            seen = signals.cancellations
            gone = set(leaving)
            withdrawn = [row for row, job in enumerate(live) if row not in gone and job.future.cancelled()]
            stats.cancelled += len(withdrawn)
            leaving = sorted(leaving + withdrawn)
        if leaving:
            live, holes, movers = _plan_moves(live, leaving, sampler.device)
            if not live:
                return
            count = len(live)
            sampler.drop(holes, movers, count)
            session.drop(holes, movers, count)
            limits = move_rows(limits, holes, movers, count)
            ids = move_rows(ids, holes, movers, count)
            logprobs = move_rows(logprobs, holes, movers, count)
            tokens = move_rows(tokens, holes, movers, count)
        logits = session.step(tokens)


def _plan_moves(live: list[Job], leaving: list[int], device: torch.device) -> tuple[list[Job], Tensor, Tensor]:
    """Keep the rest at the front with the fewest moves: the last rows fill the holes that leaving ones make."""
    gone = set(leaving)
    count = len(live) - len(gone)
    holes = [row for row in leaving if row < count]
    movers = [row for row in range(count, len(live)) if row not in gone]
    for hole, mover in zip(holes, movers, strict=True):
        live[hole] = live[mover]
    return live[:count], torch.tensor(holes, device=device).long(), torch.tensor(movers, device=device).long()


def _resolve(
    job: Job,
    ids: Tensor,
    logprobs: Tensor,
    length: int,
    finish: FinishReason,
    text: Callable[[Sequence[int]], str],
    version: str,
    started: float,
) -> None:
    tokens = ids[:length].tolist()
    values = logprobs[:length].tolist()
    if not all(map(math.isfinite, values)):
        job.fail(
            BackboneError(
                f"the model {version!r} gave a log-probability that is not finite.",
                code="BACKBONE_NOT_FINITE",
                hint='dtype="float32"',
            )
        )
        return
    now = time.perf_counter()
    job.resolve(
        Completion(
            text=text(tokens[:-1] if finish == "stop" else tokens),
            token_ids=tuple(tokens),
            logprobs=tuple(values),
            finish_reason=finish,
            model_version=version,
            queue_ms=1000 * (started - job.submitted),
            model_ms=1000 * (now - started),
        )
    )
