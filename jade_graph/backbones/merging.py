"""Adapters merged into a model, and what was written compared with what was trained.

Invariant: the merged model computes what the adapted one does. An adapter on one of two tied ends (embedding and head
share their weights) would change the other too: they are untied first. What leaves for a folder is read again and asked
the same; what answers otherwise is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jade_graph.backbones.weights import LOADING, quiet
from jade_graph.errors import BackboneError

_LENGTH = 16
# Largest difference of log-probabilities (nats) that writing in a number format explains, times the spread of logits.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def merged(adapted: Any) -> Any:
    """The model of a PEFT model with its adapters in its own weights. The PEFT model is used up."""
    model = adapted.get_base_model()
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if first is not None and last is not None and (_changed(first) or _changed(last)):
        _untie(model, first, last)
    return adapted.merge_and_unload()


def _changed(module: Any) -> bool:
    """Whether an adapter works on this module, or a copy of it was trained."""
    return hasattr(module, "base_layer") or hasattr(module, "modules_to_save")


def _own(module: Any) -> Any:
    for name in ("base_layer", "original_module"):
        module = getattr(module, name, module)
    return module


def _untie(model: Any, first: Any, last: Any) -> None:
    if _own(last).weight is _own(first).weight:
        _own(last).weight = torch.nn.Parameter(_own(first).weight.detach().clone(), requires_grad=False)
    elif not model.config.get_text_config().tie_word_embeddings:
        return
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    if hasattr(model, "all_tied_weights_keys"):  # what transformers found tied as it made the model
        model.all_tied_weights_keys = {}


def answers(model: Any) -> Tensor:
    """What a model says to a fixed row of tokens: logits (tokens, vocabulary), float32 on the CPU."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    device = next(model.parameters()).device
    ids = torch.tensor([[(17 * at + 5) % rows for at in range(_LENGTH)]], device=device)
    was = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
            return logits.float().cpu()
    finally:
        model.train(was)


def require_like(folder: Path, wanted: Tensor) -> None:
    """Refuse a folder whose model answers otherwise than the one that it was written from.

    Args:
        wanted: `answers` of that one.

    Raises:
        BackboneError: EXPORT_DIFFERS; BACKBONE_LOAD where the folder does not load.
    """
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    try:
        with LOADING, quiet():
            model = make.from_pretrained(
                str(folder), dtype="auto", trust_remote_code=False, use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # transformers raises whatever its parsers raise
        raise BackboneError(
            f"the model that was written to {str(folder)!r} does not load: {type(error).__name__}: {error}",
            code="BACKBONE_LOAD",
        ) from error
    found = answers(model)
    limit = _TOLERANCE.get(model.dtype, _TOLERANCE[torch.bfloat16]) * (1 + float(wanted.std(-1).max()))
    gap = float((found.log_softmax(-1) - wanted.log_softmax(-1)).square().mean(-1).sqrt().max())
    if not gap <= limit:
        raise BackboneError(
            f"the model that was written to {str(folder)!r} computes other numbers than the trained one: "
            f"log-probabilities are off by {gap:.3g}, and rounding explains {limit:.3g}.",
            code="EXPORT_DIFFERS",
            hint="targets that leave embedding and head alone, or dtype='float32'",
        )
