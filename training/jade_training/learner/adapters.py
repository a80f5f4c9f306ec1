"""What of a model is trained: all of it, or low-rank adapters beside it.

Invariant: what is trained is float32; with adapters, the model without them stays as it was and is the reference.
"""

from __future__ import annotations

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


def bare(model: Any) -> Any:
    """The transformers model as it is served: adapters, where there are any, are in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
