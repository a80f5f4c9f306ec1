"""Examples as a model reads them: groups of like length, rows padded on the left, the loss of what is held out.

Invariant: a row's padding is neither attended to nor learned, and takes no position; the same seed gives the same
groups.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

Pair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and action ids."""


def grouped(examples: Sequence[Pair], tokens: int, rows: int, seed: int, *, passes: int) -> tuple[list[list[int]], int]:
    """Places of examples in micro-batches, and how many of these make a step.

    A step is `rows` examples drawn at random, so that each has something of every role; within it, those of like length
    are read together, at most `tokens` with padding at a time. Each step has equally many micro-batches, as trainers
    want it: where fewer would do, the largest are halved.

    Args:
        passes: over the examples, each in another order.
    """
    rng = random.Random(f"sft groups {seed}")
    length = [len(prompt) + len(action) for prompt, action in examples]
    steps: list[list[list[int]]] = []
    for _ in range(passes):
        order = rng.sample(range(len(examples)), len(examples))
        count = max(1, round(len(examples) / rows))
        steps += [_like_length(order[i::count], length, tokens) for i in range(count)]
    wanted = min(max(map(len, steps)), min(sum(map(len, step)) for step in steps))
    for step in steps:
        while len(step) < wanted:
            widest = max((g for g in step if len(g) > 1), key=lambda g: len(g) * max(length[i] for i in g))
            at = step.index(widest)
            step[at : at + 1] = [widest[: len(widest) // 2], widest[len(widest) // 2 :]]
        while len(step) > wanted:  # a step of fewer examples than another has micro-batches
            step[0:2] = [step[0] + step[1]]
    return [group for step in steps for group in step], wanted


def _like_length(places: Sequence[int], length: Sequence[int], tokens: int) -> list[list[int]]:
    """Groups of like length, the shortest first, at most so many tokens with padding each."""
    groups: list[list[int]] = []
    for i in sorted(places, key=lambda i: (length[i], i)):
        if groups and length[i] * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def digest(examples: Sequence[Pair]) -> str:
    """A name for examples that their token ids decide."""
    text = json.dumps([[list(prompt), list(action)] for prompt, action in examples])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def action_logits(model: Any, prompt: Sequence[int], action: Sequence[int]) -> Any:
    """What the model expects at each action token: (action, vocabulary), float32."""
    import torch

    ids = torch.tensor([[*prompt, *action]], device=next(model.parameters()).device)
    return model(ids, logits_to_keep=len(action) + 1, use_cache=False).logits[0, :-1].float()


def held_out_loss(model: Any, by_role: Mapping[str, Sequence[Pair]], bf16: bool, suffix: str = "") -> dict[str, float]:
    """Mean loss of each role's action tokens, in nats."""
    import torch

    out: dict[str, float] = {}
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for role, pairs in sorted(by_role.items()):
            total, count = 0.0, 0
            for prompt, action in pairs:
                wanted = torch.tensor(list(action), device=device)[:, None]
                total -= action_logits(model, prompt, action).log_softmax(-1).gather(-1, wanted).sum().item()
                count += len(action)
            out[f"held_out {role}{suffix}"] = total / max(count, 1)
    return out


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows padded on the left; what padding holds is neither attended to nor learned, and takes no position."""
    import torch

    longest = max(len(e["input_ids"]) for e in examples)

    def padded(name: str, fill: int) -> Any:
        return torch.tensor([[*[fill] * (longest - len(e[name])), *e[name]] for e in examples])

    mask = torch.tensor([[0] * (longest - len(e["input_ids"])) + [1] * len(e["input_ids"]) for e in examples])
    more = {}
    if "droppable" in examples[0]:
        more = {"droppable": padded("droppable", 0), "place": torch.tensor([e["place"] for e in examples])}
    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", -100),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        **more,
    }
