"""What a model's forward passes cost at least, on this machine.

Invariant: a floor is arithmetic at the speed of a large matrix product, which the same process measures; nothing is
assumed of a processor.
"""

from __future__ import annotations

import time
from typing import Any

import torch


def clock(device: torch.device) -> float:
    """Seconds of CPU time over all threads, which a busy machine does not stretch; of wall time for accelerators."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def arithmetic(model: Any, prompt_tokens: float, new_tokens: float) -> float:
    """Floating-point operations of one call's plain forward passes: 2 per matrix weight and token.

    The last new token is not fed back, the head works only where a token is drawn, and attention scores are left out.
    """
    head = model.get_output_embeddings()
    layers = sum(
        int(module.weight.numel())
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    return 2.0 * (layers * (prompt_tokens + new_tokens - 1) + int(head.weight.numel()) * new_tokens)


def matmul_flops(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """Floating-point operations per second (`clock`) of a large square matrix product, the best of ten."""
    a = torch.randn(size, size, device=device).to(dtype)
    best: float = float("inf")
    with torch.inference_mode():
        for _ in range(11):
            start = clock(device)
            _ = (a @ a)[0, 0].item()
            best = min(best, clock(device) - start)
    return 2.0 * size * size * size / best
