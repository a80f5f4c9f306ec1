"""Gradient passes over the rows that the roles of `jade` give, with what rows share read once and without.

Invariant: all ways run the same model over the same rows with one thread, in alternating rounds, and come to the same
gradient; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from jade_graph.backbones import load_backbone
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench.floor import matmul_flops
from jade_graph.bench.roles import distinct_tokens, recorded
from jade_graph.bench.rollout import one_thread
from jade_graph.errors import UsageError
from jade_graph.sync import run_sync
from jade_training.learner.adapters import bare, trainable
from jade_training.learner.logits import Pair, Reader, distribution, pack
from jade_training.learner.ppo import Lora

WAYS = ("shared", "apart", "transformers")
"""Rows as trees; each by itself through our pass; each through transformers' own, in micro-batches of like length."""
_MICRO, _RANK = 2048, 16
_NEAR = 1e-3


def run(*, model: str = "smollm2", questions: int = 6, quick: bool = False) -> dict[str, float]:
    """Measure gradient passes of `model` (a folder or a named model) on a CPU, all weights and adapters.

    Args:
        questions: of microworld, with 4 runs each, whose prompts are in the model's own profile.
        quick: two questions and one round instead of three.

    Returns:
        For `full` and `lora` (rank 16 on every linear layer): `WHAT_WAY_tokens_per_s` for the ways "shared" (what rows
        begin with is read once), "apart" (each row by itself) and "transformers" (its own forward pass), tokens of all
        rows over wall seconds; `WHAT_over_WAY`: shared over that way. `WHAT_floor_ratio`: CPU seconds of "shared" over
        the arithmetic of distinct tokens (6 operations for each weight, of adapters 4) at this machine's speed for a
        large product. `repeated_share`, `rows`, `tokens`, `matmul_gflops`, `parameters`: what was measured.

    Raises:
        UsageError: BENCH_MODEL; BENCH_DIFFERS, where the ways come to different gradients.
    """
    with one_thread():
        return _measure(model, *((1, 2) if quick else (3, questions)))


def _measure(name: str, rounds: int, questions: int) -> dict[str, float]:
    backbone = load_backbone(name, **({} if ":" in name else {"device": "cpu", "dtype": "float32"}))
    if not isinstance(backbone, HFBackbone):
        run_sync(backbone.aclose())
        raise UsageError(f"{name!r} is no model in this process.", code="BENCH_MODEL", known=["smollm2", "a folder"])
    pairs = run_sync(_rows(backbone, questions))
    plain = backbone.model
    run_sync(backbone.aclose())
    tokens = sum(len(prompt) + len(action) for prompt, action in pairs)
    distinct = distinct_tokens([(*prompt, *action[:-1]) for prompt, action in pairs])
    flops = matmul_flops(torch.float32, torch.device("cpu"))
    figures: dict[str, float] = {}
    for what, lora in (("lora", Lora(_RANK, 2 * _RANK)), ("full", None)):
        model = trainable(bare(plain), lora)
        wall, cpu = _timed(model, pairs, rounds)
        figures |= {f"{what}_{way}_tokens_per_s": tokens / statistics.median(wall[way]) for way in WAYS}
        for way in WAYS[1:]:
            ratios = [slow / quick for slow, quick in zip(wall[way], wall["shared"], strict=True)]
            figures[f"{what}_over_{way}"] = statistics.median(ratios)
        head = plain.get_output_embeddings()
        layers = sum(m.weight.numel() for m in _linear(model) if m is not head)
        drawn = sum(len(action) for _, action in pairs)
        least = (4.0 if lora else 6.0) * (layers * distinct + head.weight.numel() * drawn)
        figures[f"{what}_floor_ratio"] = statistics.median(cpu) / (least / flops)
        if lora is not None:
            model.unload()
    return figures | {
        "repeated_share": 1 - distinct / tokens,
        "rows": float(len(pairs)),
        "tokens": float(tokens),
        "matmul_gflops": flops / 1e9,
        "parameters": float(sum(p.numel() for p in plain.parameters())),
    }


def _linear(model: Any) -> list[Any]:
    """Stock linear layers but for those of adapters."""
    return [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lora_" not in n]


async def _rows(backbone: HFBackbone, questions: int) -> list[Pair]:
    """What a rollout of these questions gives to learn from: each copy of a run acts a little differently."""
    rng = random.Random(0)
    vocabulary = int(backbone.model.get_input_embeddings().weight.shape[0])
    runs = await recorded(backbone, questions, 0)
    calls = [call for run in runs for call in run]
    return [(call.prompt, tuple(rng.randrange(vocabulary) for _ in range(call.new_tokens))) for call in calls]


def _timed(model: Any, pairs: Sequence[Pair], rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Wall seconds of each way, and CPU seconds of "shared", by round."""
    readers = {way: Reader(model) for way in WAYS}
    for way, reader in readers.items():
        reader.shares = way == "shared" and reader.fast
    readers["transformers"]._fast = None
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: list[float] = []
    for number in range(rounds):
        norms = {}
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            model.zero_grad(set_to_none=True)
            began, used = time.perf_counter(), time.process_time()
            _pass(readers[way], pairs)
            wall[way].append(time.perf_counter() - began)
            if way == "shared":
                cpu.append(time.process_time() - used)
            norms[way] = float(
                torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            )
        if max(norms.values()) - min(norms.values()) > _NEAR * max(norms.values()):
            raise UsageError(f"the norms of the gradients differ: {norms}.", code="BENCH_DIFFERS")
    return wall, cpu


def _pass(reader: Reader, pairs: Sequence[Pair]) -> None:
    """Forwards and backwards over all rows: the mean negative log-likelihood of the actions."""
    count = sum(len(action) for _, action in pairs)
    for chunk in reader.cut(pairs, _MICRO):
        some = [pairs[i] for i in chunk]
        packed = pack(some)
        logits, _ = reader.read(some, packed, _MICRO)
        logs = distribution(logits, torch.ones(len(logits)))
        loss: Any = -logs.gather(-1, packed.targets[:, None]).sum() / count
        loss.backward()
