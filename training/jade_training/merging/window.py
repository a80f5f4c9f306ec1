"""The last checkpoints of a learning run as one model: what its weights would be, had the rate decayed (WSM).

Invariant: training never sees the merge; it goes on from its own last weights. What is merged is read from the run's
folder, so that a run that is taken up again merges the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.merging import merged as plain
from jade_training.learner.saving import WEIGHTS
from jade_training.merging.curves import Window
from jade_training.merging.linear import combine

if TYPE_CHECKING:
    from torch import Tensor

_POLICY = "policy."


def merged_window(model: Any, window: Window, folder: Path, done: int) -> Any | None:
    """A copy of the model in training with its last weights merged; None where there is one checkpoint alone.

    Args:
        model: as it is trained now, after `done` + 1 updates; adapters are merged as what they change.
        folder: `NNN/checkpoint` of the updates before.
    """
    from safetensors.torch import load_file

    paths = [folder / f"{i:03d}" / "checkpoint" / WEIGHTS for i in range(done - window.size + 1, done) if i >= 0]
    states: list[Mapping[str, Tensor]] = [load_file(path) for path in paths if path.is_file()]
    if not states:
        return None
    own = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    states = [{n.removeprefix(_POLICY): t for n, t in state.items()} for state in states] + [own]
    return merged(model, states, window.coefficients(len(states)))


def merged(model: Any, states: Sequence[Mapping[str, Tensor]], coefficients: Sequence[float]) -> Any:
    """A plain copy of a model whose trained weights are sum_i c_i state_i; of adapters, whose base is changed by that.

    Args:
        states: trained parameters by their names in `model`, the oldest first.
    """
    import torch

    with torch.no_grad():
        if not hasattr(model, "peft_config"):
            copied = copy.deepcopy(model)
            named = dict(copied.named_parameters())
            for name, tensor in combine(states, coefficients).items():
                named[name].copy_(tensor)
            return copied.requires_grad_(False)
        scale = {name: config.lora_alpha / config.r for name, config in model.peft_config.items()}
        copied = copy.deepcopy(model)
        for name, weight in copied.named_parameters():
            if ".lora_B." in name:
                weight.zero_()
        base = plain(copied)  # tied ends that an adapter works on are untied
        named = dict(base.named_parameters())
        for name in [n for n in states[0] if ".lora_A." in n]:
            layer, _, rest = name.partition(".lora_A.")
            weight = named[layer.removeprefix("base_model.model.") + ".weight"]
            total = weight.double()
            for c, state in zip(coefficients, states, strict=True):
                b, a = (state[f"{layer}.lora_{half}.{rest}"].to(weight.device).double() for half in "BA")
                total += c * scale[rest.partition(".")[0]] * (b @ a)
            weight.copy_(total)
        return base.requires_grad_(False)


def needed(window: Window | None, done: int) -> range:
    """The iterations whose weights the next merge reads, when `done` of them are made."""
    return range(max(0, done - window.size + 1), done) if window is not None else range(0)


__all__ = ["merged", "merged_window", "needed"]
