"""New tokens a second on the prompts that the roles of `jade` really have, beside those whom one would use instead.

Invariant: all sides get the same token ids, the same number of new tokens for each call and one thread, in alternating
rounds; no round has a prompt of an earlier one but for what all prompts of a role have in common. Within a run a call
waits for the one before it, as in the graph.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import torch

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.prefixes import common
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import OraclePolicy, make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.types import Sampling

if TYPE_CHECKING:
    from jade_graph.types import Message

AT_ONCE = (1, 8, 32)
COPIES = 4
"""Runs of each question, as in a rollout."""
_NO_END = -1
_TIMEOUT_S = 600.0

Side = Callable[[Sequence[int], int, int], Awaitable[None]]
"""A call: prompt ids, how many new tokens, seed."""


@dataclass(frozen=True, slots=True)
class Call:
    """A prompt of a role, and how many tokens its right action has."""

    prompt: tuple[int, ...]
    new_tokens: int


Calls = list[Call]
"""Of one run, in order."""


async def recorded(backbone: HFBackbone, questions: int, seed: int) -> list[Calls]:
    """The calls of microworld's oracle at `jade`, `COPIES` runs of each question, in the model's own prompt profile."""
    world = make_world("test", seed)
    asked = make_questions(world, questions, seed=seed)
    scripted = ScriptedBackbone(OraclePolicy(world, asked), profile=backbone.profile)
    graph = JadeGraph(scripted, preset="jade", retriever=WordSearch(world.passages), k=5)
    found: list[Calls] = []
    for question in asked:
        run = await graph.arun(question, seed=seed)
        calls = [
            Call(tuple(backbone.encode(_messages(t.prompt_messages))), len(backbone.encode_text(t.action_text)) + 1)
            for t in run.transitions
            if t.prompt_token_ids
        ]
        found += [calls] * COPIES
    await graph.aclose()
    return found


def _messages(messages: Any) -> Sequence[Message]:
    return list(messages)


async def measure(
    backbone: HFBackbone, *, rounds: int, questions: int, vllm: str | None, llama: str | None
) -> dict[str, float]:
    """See `generate.run` with `prompts="roles"`."""
    ours = HFBackbone.from_model(backbone.model, Codec(backbone.tokenizer, [_NO_END]), version="bench", constant=True)
    backbone.model.generation_config.eos_token_id = None
    sides: dict[str, Side] = {"ours": _ours(ours)}
    speeds: dict[tuple[str, int], list[float]] = {}
    cpu: list[float] = []
    flops: list[float] = []
    everything: list[Call] = []
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=httpx.Limits(max_connections=max(AT_ONCE))) as client:
        if vllm is not None:
            sides["vllm"] = await _vllm(client, vllm)
        if llama is not None:
            sides["llama"] = _llama(client, llama)
        try:
            for number in range(rounds):
                for place, callers in enumerate(AT_ONCE):
                    few = max(1, questions * callers // max(AT_ONCE))
                    runs = await recorded(backbone, few, 1 + number * len(AT_ONCE) + place)
                    calls = [call for run in runs for call in run]
                    new = sum(call.new_tokens for call in calls)
                    for name, side in sides.items():
                        begun, used = time.perf_counter(), time.process_time()
                        await _replay(runs, callers, side)
                        speeds.setdefault((name, callers), []).append(new / (time.perf_counter() - begun))
                        if name == "ours" and callers == max(AT_ONCE):
                            cpu.append(time.process_time() - used)
                            flops.append(_least(backbone.model, calls))
                            everything += calls
                    begun = time.perf_counter()
                    _in_batches(backbone.model, calls, callers)
                    speeds.setdefault(("generate", callers), []).append(new / (time.perf_counter() - begun))
        finally:
            await ours.aclose()
    return _figures(speeds, cpu, flops, everything) | {
        "parameters": float(sum(p.numel() for p in backbone.model.parameters()))
    }


def _figures(
    speeds: dict[tuple[str, int], list[float]], cpu: list[float], flops: list[float], calls: Sequence[Call]
) -> dict[str, float]:
    from jade_graph.bench.floor import matmul_flops

    found: dict[str, float] = {}
    for (name, callers), values in speeds.items():
        found[f"{name}_tokens_per_s_{callers}"] = statistics.median(values)
        if name != "ours":
            ratios = [mine / theirs for mine, theirs in zip(speeds["ours", callers], values, strict=True)]
            found[f"over_{name}_at_{callers}"] = statistics.median(ratios)
    peak = matmul_flops(torch.float32, torch.device("cpu"))
    asked = sum(len(call.prompt) for call in calls)
    return found | {
        "floor_ratio": statistics.median(used / (least / peak) for used, least in zip(cpu, flops, strict=True)),
        "prompt_tokens": asked / len(calls),
        "new_tokens": statistics.fmean(call.new_tokens for call in calls),
        "repeated_share": 1 - distinct_tokens([call.prompt for call in calls]) / asked,
        "threads": float(torch.get_num_threads()),
        "matmul_gflops": peak / 1e9,
    }


def distinct_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of these prompts that are not in the beginning of another: what has to be computed at least."""
    total, before = 0, tuple[int, ...]()
    for prompt in sorted(map(tuple, prompts)):
        total += len(prompt) - common(prompt, before)
        before = prompt
    return total


def _least(model: Any, calls: Sequence[Call]) -> float:
    """Floating-point operations that the calls need where every beginning is computed once."""
    from jade_graph.bench.floor import arithmetic

    new = sum(call.new_tokens for call in calls)
    return arithmetic(model, distinct_tokens([call.prompt for call in calls]) - len(calls) + 1, new)


async def _replay(runs: Sequence[Calls], at_once: int, side: Side) -> None:
    """All runs, so many at a time."""
    waiting = iter(enumerate(runs))

    async def one() -> None:
        for number, calls in waiting:
            for call in calls:
                await side(call.prompt, call.new_tokens, number)

    await asyncio.gather(*(one() for _ in range(at_once)))


def _in_batches(model: Any, calls: Sequence[Call], at_once: int) -> None:
    """`model.generate` on batches of like length, padded on the left: every call known beforehand, none waits."""
    order = sorted(calls, key=lambda call: (len(call.prompt), call.new_tokens))
    for first in range(0, len(order), at_once):
        batch = order[first : first + at_once]
        width = max(len(call.prompt) for call in batch)
        ids = torch.tensor([[0] * (width - len(call.prompt)) + list(call.prompt) for call in batch])
        mask = torch.tensor([[0] * (width - len(call.prompt)) + [1] * len(call.prompt) for call in batch])
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max(call.new_tokens for call in batch),
                pad_token_id=0,
            )


def _ours(backbone: HFBackbone) -> Side:
    async def call(prompt: Sequence[int], new_tokens: int, seed: int) -> None:
        await backbone.generate(prompt, Sampling(max_new_tokens=new_tokens, seed=seed))

    return call


async def _vllm(client: httpx.AsyncClient, url: str) -> Side:
    """A vLLM server's completions, of ids. A seed of a request's own stops its engine on a CPU: none is sent."""
    listed = (await client.get(f"{url}/v1/models")).raise_for_status().json()
    model = listed["data"][0]["id"]

    async def call(prompt: Sequence[int], new_tokens: int, seed: int) -> None:
        del seed
        body = {"model": model, "prompt": list(prompt), "max_tokens": new_tokens, "ignore_eos": True, "logprobs": 0}
        (await client.post(f"{url}/v1/completions", json=body)).raise_for_status()

    return call


def _llama(client: httpx.AsyncClient, url: str) -> Side:
    """A llama.cpp server's completions, of ids, with its own cache of prompts."""

    async def call(prompt: Sequence[int], new_tokens: int, seed: int) -> None:
        body = {"prompt": list(prompt), "n_predict": new_tokens, "ignore_eos": True, "seed": seed, "cache_prompt": True}
        (await client.post(f"{url}/completion", json=body)).raise_for_status()

    return call
