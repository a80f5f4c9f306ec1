"""Calls per second through a backbone against one `model.generate` call after another.

Invariant: both sides get the same model object, prompts, number of new tokens and threads, in alternating rounds, so
that what else the machine does falls on both; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jade_graph.backbones import load_backbone
from jade_graph.backbones.codec import Codec
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench.floor import arithmetic, clock, matmul_flops
from jade_graph.errors import UsageError
from jade_graph.types import Sampling

if TYPE_CHECKING:
    from jade_graph.types import Backbone

CONCURRENCY = (1, 8, 64)
PROMPT_TOKENS = (104, 168)
"""Prompt lengths are uniform between these: 136 on average."""
NEW_TOKENS = 16
_NO_END = -1


def run(
    *,
    model: str = "tiny",
    prompts: str = "random",
    vllm: str | None = None,
    llama: str | None = None,
    quick: bool = False,
) -> dict[str, float]:
    """Measure `model` (a local folder or hub id; "tiny": the bundled model).

    Args:
        model: "random" measures a random model of the bundled one's size.
        prompts: "random", or "roles": those of `jade` on microworld, 4 runs of each question.
        vllm, llama: with "roles", addresses of a vLLM and of a llama.cpp server of the same weights.
        quick: three short rounds instead of seven.

    Returns:
        `calls_per_s_{1,8,64}`: concurrent callers, each with one call in flight; `sequential_calls_per_s`:
        `model.generate`, one call after another; `speedup_at_{1,8,64}`: their ratios. `floor_ratio`: CPU seconds per
        call at 64 (wall seconds on an accelerator) over its floor: `arithmetic`, at this machine's speed for a large
        matrix product in the same dtype. `prompt_tokens`, `new_tokens`, `parameters`, `threads`, `matmul_gflops`:
        what was measured, and on what.

        With "roles", by runs at once N (1, 8, 32): `ours_tokens_per_s_N`, `generate_tokens_per_s_N` (transformers'
        `generate` on batches of N calls of like length, all known beforehand), `vllm_..`, `llama_..`: new tokens a
        second; `over_SIDE_at_N`: ours over that side's, the median of the rounds' ratios. `floor_ratio`: CPU seconds
        at 32 over the arithmetic where each beginning is computed once; `repeated_share`: of the prompts' tokens,
        those in a beginning that another prompt has too.

    Raises:
        UsageError: BENCH_MODEL, BENCH_PROMPTS.
    """
    if prompts not in ("random", "roles"):
        raise UsageError(f"unknown prompts {prompts!r}.", code="BENCH_PROMPTS", known=["random", "roles"])
    if prompts == "roles":
        return asyncio.run(_measure_roles(_named(model), quick, vllm, llama))
    if model == "random":
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_measure(_random_model(Path(folder)), quick))
    return asyncio.run(_measure(_named(model), quick))


def _named(model: str) -> HFBackbone:
    loaded = load_backbone(model)
    if not isinstance(loaded, HFBackbone):
        raise UsageError(
            f"{model!r} is no model in this process.", code="BENCH_MODEL", known=["tiny", "random", "a folder"]
        )
    return loaded


async def _measure_roles(loaded: HFBackbone, quick: bool, vllm: str | None, llama: str | None) -> dict[str, float]:
    from jade_graph.bench.roles import measure

    rounds, questions = (1, 2) if quick else (5, 8)
    try:
        return await measure(loaded, rounds=rounds, questions=questions, vllm=vllm, llama=llama)
    finally:
        await loaded.aclose()


def _random_model(folder: Path) -> HFBackbone:
    from jade_graph.testing.models import make_random_model

    return HFBackbone.load(
        make_random_model(folder, vocab_size=900, layers=4, width=128, heads=4, max_context=1024), device="cpu"
    )


async def _measure(loaded: HFBackbone, quick: bool) -> dict[str, float]:
    rng = np.random.default_rng(0)
    rounds, calls = (3, 3) if quick else (7, 8)
    model = loaded.model
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    # No two calls of a round have a prompt in common, so that nothing is gained by what was computed before.
    sizes = rng.integers(*PROMPT_TOKENS, 256, endpoint=True)
    prompts = [rng.integers(0, vocabulary, size).tolist() for size in sizes]
    # An end token that is never drawn: every call has exactly NEW_TOKENS.
    backbone = HFBackbone.from_model(model, Codec(loaded.tokenizer, [_NO_END]), version=loaded.version)
    model.generation_config.eos_token_id = None
    sequential: list[float] = []
    concurrent: dict[int, list[float]] = {n: [] for n in CONCURRENCY}
    cpu: list[float] = []
    try:
        _generate_one(model, prompts[0])
        await _calls(backbone, prompts, 8, 8)
        for index in range(rounds):
            start = time.perf_counter()
            for number in range(calls):
                _generate_one(model, prompts[(index * calls + number) % len(prompts)])
            sequential.append(calls / (time.perf_counter() - start))
            for callers in CONCURRENCY:
                total = {1: 2 * calls, 8: 4 * max(calls, 8), 64: 128 if quick else 256}[callers]
                begun, used = time.perf_counter(), clock(model.device)
                await _calls(backbone, prompts, callers, total)
                concurrent[callers].append(total / (time.perf_counter() - begun))
                if callers == 64:
                    cpu.append((clock(model.device) - used) / total)
    finally:
        await backbone.aclose()
        await loaded.aclose()
    flops = matmul_flops(model.dtype, model.device)
    mean_prompt = statistics.fmean(map(len, prompts))
    figures = {"sequential_calls_per_s": statistics.median(sequential)}
    for callers, values in concurrent.items():
        figures[f"calls_per_s_{callers}"] = statistics.median(values)
        ratios = [value / base for value, base in zip(values, sequential, strict=True)]
        figures[f"speedup_at_{callers}"] = statistics.median(ratios)
    return figures | {
        "floor_ratio": statistics.median(cpu) / (arithmetic(model, mean_prompt, NEW_TOKENS) / flops),
        "prompt_tokens": mean_prompt,
        "new_tokens": float(NEW_TOKENS),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "threads": float(torch.get_num_threads()),
        "matmul_gflops": flops / 1e9,
    }


async def _calls(backbone: Backbone, prompts: Sequence[list[int]], callers: int, total: int) -> None:
    """`total` calls by `callers` tasks, each of which waits for its answer before it asks again."""
    waiting = iter(range(total))

    async def caller() -> None:
        for number in waiting:
            sampling = Sampling(max_new_tokens=NEW_TOKENS, seed=number)
            await backbone.generate(prompts[number % len(prompts)], sampling)

    await asyncio.gather(*(caller() for _ in range(callers)))


def _generate_one(model: Any, prompt: list[int]) -> None:
    ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
        )
