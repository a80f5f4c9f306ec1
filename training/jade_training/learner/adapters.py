"""What of a model is trained: all of it, or low-rank adapters beside it.

Invariant: what is trained is float32; with adapters, the model without them stays as it was and is the reference.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from jade_graph.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor

    from jade_training.learner.ppo import Lora


class Adapter(NamedTuple):
    """What LoRA adds to a projection: scale (x A^T) B^T, with A (rank, in) and B (out, rank)."""

    a: Tensor
    b: Tensor
    scale: float


def trainable(model: Any, lora: Lora | None) -> Any:
    """The model with what is to be trained in float32, as adapters or as a whole.

    Raises `UsageError` UNKNOWN_TARGET.
    """
    if lora is None:
        return model.float().requires_grad_(True)
    import torch
    from peft import LoraConfig, get_peft_model

    linear = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    for target in lora.targets or ():
        if target.rpartition(".")[2] not in linear:
            raise unknown("linear module", target, linear, code="UNKNOWN_TARGET")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=list(lora.targets) if lora.targets else "all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return get_peft_model(model, config)


def served(model: Any) -> Any:
    """The model that rollouts are served from: adapters merged into a copy, in the number format that suits the device.

    A small model without adapters serves itself. A copy in bfloat16 samples from a policy that differs from the
    trained one by its rounding; `PPOConfig.logprob_tolerance` watches how far.
    """
    import torch

    from jade_graph.backbones.merging import merged
    from jade_graph.backbones.weights import choose_dtype

    weights = list(model.parameters())
    dtype = choose_dtype(None, weights[0].device, sum(w.numel() for w in weights))
    adapted = hasattr(model, "merge_and_unload")
    if not adapted and dtype == torch.float32:
        return model
    with torch.no_grad():
        copied = copy.deepcopy(model)
        plain = merged(copied) if adapted else copied
    return plain.to(dtype).requires_grad_(False).eval()


def bare(model: Any) -> Any:
    """The transformers model as it is served: adapters, where there are any, are in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def adapters_are_known(model: Any) -> bool:
    """Whether a model has adapters, all of them plain LoRA beside linear layers (no DoRA, dropout, bias, merge)."""
    import torch

    wrapped = [module for module in model.modules() if hasattr(module, "base_layer")]
    return bool(wrapped) and all(
        type(module).__name__ == "Linear"
        and type(module).__module__ == "peft.tuners.lora.layer"
        and type(module.base_layer) is torch.nn.Linear
        and len(module.active_adapters) == 1
        and list(module.lora_A) == list(module.active_adapters)
        and all(type(part) is torch.nn.Linear and part.bias is None for part in _parts(module))
        and all(type(dropout) is torch.nn.Identity for dropout in module.lora_dropout.values())
        and not (module.merged or module.fan_in_fan_out or any(module.use_dora.values()))
        and not getattr(module, "lora_variant", None)
        for module in wrapped
    )


def adapter_of(module: Any) -> Adapter | None:
    """The adapter beside a projection, where it is switched on."""
    if not hasattr(module, "base_layer") or module.disable_adapters:
        return None
    a, b = _parts(module)
    return Adapter(a.weight, b.weight, float(module.scaling[module.active_adapters[0]]))


def _parts(module: Any) -> tuple[Any, Any]:
    name = module.active_adapters[0]
    return module.lora_A[name], module.lora_B[name]


@contextmanager
def woken(model: Any) -> Iterator[None]:
    """Adapters that change what the model computes, within the context: new ones change nothing until they learn."""
    import torch

    parts = [_parts(module)[1].weight for module in model.modules() if hasattr(module, "base_layer")]
    before = [part.detach().clone() for part in parts]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in parts:
            part.add_(torch.randn(part.shape, generator=generator).to(part) * 0.05)
    try:
        yield
    finally:
        with torch.no_grad():
            for part, old in zip(parts, before, strict=True):
                part.copy_(old)
