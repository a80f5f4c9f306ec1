"""Tokens per second of a PPO update, against the arithmetic that it cannot do without.

Invariant: float32 and bfloat16 train copies of one model on the same recorded rows, in alternating rounds of one
process with one thread; the trainer, its settings and its checks are those of training.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from jade_graph.backbones import load_backbone
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench.floor import matmul_flops
from jade_graph.bench.rollout import one_thread
from jade_graph.errors import UsageError
from jade_graph.microworld import Difficulty, make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.rollouts.collecting import collect
from jade_graph.scoring.rewards import RewardSpec, Scored, score_run
from jade_graph.sync import run_sync
from jade_graph.workflow.engine import Engine
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import Row, rows_of
from jade_training.learner.trainer import PPOTrainer

if TYPE_CHECKING:
    from jade_graph.types import Run

_RATE = 1e-7
"""Learning rate: small, so that every update measured reads the policy that sampled its rows."""


def run(*, model: str = "tiny", quick: bool = False) -> dict[str, float]:
    """Measure updates of `model` (a local folder or hub id; "tiny": the bundled model) on a CPU with one thread.

    Args:
        quick: fewer rows, two rounds instead of five.

    Returns:
        Of float32, and of bfloat16 with the suffix `_bf16`: `tokens_per_s` and `rows_per_s`, tokens (prompts and
        actions) and rows of the update over its wall seconds, values and bookkeeping included; `floor_ratio`: its CPU
        seconds over their floor, 6 operations for each matrix weight and token (`arithmetic`) at this machine's speed
        for a large matrix product in that dtype. `bf16_speedup`: the ratio of the two. `rows`, `tokens`,
        `action_tokens`, `shared_prompt_share` (prompt tokens that a run's earlier rows began with), `parameters`,
        `matmul_gflops`, `rounds`: what was measured.

    Raises:
        UsageError: BENCH_MODEL, for a model that is not in this process.
    """
    with one_thread():
        return _measure(model, *((2, 24) if quick else (5, 96)))


def arithmetic(model: Any, rows: list[Row]) -> float:
    """Floating-point operations of one forward and backward pass: 6 per matrix weight and token.

    The head works at action tokens only; attention scores, the passes for values and the optimiser are left out.
    """
    head = model.get_output_embeddings()
    layers = sum(
        int(module.weight.numel())
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    return 6.0 * sum(layers * r.length + int(head.weight.numel()) * len(r.action) for r in rows)


def shared_prompt_share(rows: list[Row]) -> float:
    """The share of prompt tokens that repeat the longest common beginning with an earlier row of the same run."""
    earlier: dict[str, list[tuple[int, ...]]] = {}
    shared = total = 0
    for row in rows:
        before = earlier.setdefault(row.run_id, [])
        shared += max((_common(row.prompt, other) for other in before), default=0)
        total += len(row.prompt)
        before.append(row.prompt)
    return shared / total if total else 0.0


def _common(one: tuple[int, ...], two: tuple[int, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _measure(name: str, rounds: int, count: int) -> dict[str, float]:
    """Updates on one run of each of `count` questions, `rounds` of them after a first one."""
    model, runs, scored = run_sync(_recorded(name, count))
    rows = rows_of(runs, scored)
    trainers = {
        bf16: PPOTrainer(
            copy.deepcopy(model), PPOConfig(learning_rate=_RATE, bf16=bf16, logprob_tolerance=None), device="cpu"
        )
        for bf16 in (False, True)
    }
    wall: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for bf16, trainer in trainers.items():
            began, used = time.perf_counter(), time.process_time()
            metrics = trainer.update(runs, scored)
            # The first update has no values to compute yet, and grows the buffers.
            if number:
                wall[bf16].append(time.perf_counter() - began)
                cpu[bf16].append(time.process_time() - used)
    tokens, floor = metrics["tokens_read"], arithmetic(model, rows)
    figures: dict[str, float] = {}
    for bf16, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        suffix, seconds = "_bf16" if bf16 else "", statistics.median(wall[bf16])
        flops = matmul_flops(dtype, torch.device("cpu"))
        figures |= {
            f"tokens_per_s{suffix}": tokens / seconds,
            f"rows_per_s{suffix}": len(rows) / seconds,
            f"floor_ratio{suffix}": statistics.median(cpu[bf16]) / (floor / flops),
            f"matmul_gflops{suffix}": flops / 1e9,
        }
    return figures | {
        "bf16_speedup": statistics.median(a / b for a, b in zip(wall[False], wall[True], strict=True)),
        "rows": float(len(rows)),
        "tokens": tokens,
        "action_tokens": float(sum(len(r.action) for r in rows)),
        "shared_prompt_share": shared_prompt_share(rows),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "rounds": float(rounds),
    }


async def _recorded(name: str, count: int) -> tuple[Any, list[Run], Mapping[str, Scored]]:
    """The model, and a small rollout of it with what its runs earned."""
    backbone = load_backbone(name, **({} if ":" in name else {"device": "cpu", "dtype": "float32"}))
    try:
        if not isinstance(backbone, HFBackbone):
            raise UsageError(f"{name!r} is no model in this process.", code="BENCH_MODEL", known=["tiny", "a folder"])
        world = make_world("test", 0, Difficulty(scale=0.1))
        questions = make_questions(world, count, seed=0)
        graph = Engine(backbone, preset="jade", retriever=WordSearch(world.passages))
        runs = await collect(graph, questions, rollout_id="bench")
    finally:
        await backbone.aclose()
    spec = RewardSpec()
    scored = {each.id: score_run(each, q, spec) for each, q in zip(runs, questions, strict=True)}
    return backbone.model, runs, scored
