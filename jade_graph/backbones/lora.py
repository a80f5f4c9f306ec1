"""A LoRA adapter merged into the weights that it changes.

Invariant: what comes out is a plain folder of safetensors in the base's own number format; every tensor of the adapter
found its place in the base, and every other weight is the base's, bit for bit. Sums are made in float64.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from jade_graph.errors import BackboneError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_PLAIN = {"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False}


def merge(adapter: Path, base: Path, into: Path) -> None:
    """Write `base` with W + alpha / r * B A for each weight W that `adapter` changes (LoRA, arXiv 2106.09685, (3)).

    Plain adapters of linear layers alone, as PEFT saves them; the registry merges any other with PEFT itself.

    Raises:
        BackboneError: ADAPTER_LOAD.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        config: dict[str, Any] = json.loads((adapter / CONFIG).read_text("utf-8"))
        wanted = {name: config.get(name, value) for name, value in _PLAIN.items()}
        if wanted != _PLAIN or config.get("rank_pattern") or config.get("alpha_pattern"):
            raise ValueError(f"no plain LoRA: {wanted}")
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
        halves: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in load_file(adapter / WEIGHTS).items():
            found = _NAME.fullmatch(name)
            if found is None:
                raise ValueError(f"{name} is no part of a LoRA of linear layers")
            halves.setdefault(found[1] + ".weight", {})[found[2]] = tensor
        into.mkdir(parents=True, exist_ok=True)
        for file in sorted(base.glob("*.safetensors")):
            weights = load_file(file)
            for name in [name for name in weights if name in halves]:
                pair, old = halves.pop(name), weights[name]
                change = scale * (pair["B"].double() @ pair["A"].double())
                weights[name] = (old.double() + change).to(old.dtype).contiguous()
            save_file(weights, into / file.name, {"format": "pt"})
        if halves:
            raise ValueError(f"the base has no {sorted(halves)[0]}")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"the adapter {str(adapter)!r} does not fit {str(base)!r}: {error}",
            code="ADAPTER_LOAD",
            hint="the base that it was trained on",
        ) from error
    for pattern in ("*.json", "*.jinja", "*.model", "*.txt"):
        for path in base.glob(pattern):
            shutil.copyfile(path, into / path.name)
