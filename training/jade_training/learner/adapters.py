"""What of a model is trained: all of it, or low-rank adapters beside it.

Invariant: what is trained is float32; with adapters, the model without them stays as it was and is the reference.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from jade_graph.errors import unknown

if TYPE_CHECKING:
    from jade_training.learner.ppo import Lora


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
