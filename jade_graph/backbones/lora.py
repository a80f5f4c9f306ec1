"""A LoRA adapter merged into the weights that it changes.

Invariant: what comes out is a plain folder of safetensors in the base's own number format; every tensor of the adapter
found its place in the base, and every other weight is the base's, bit for bit. Sums are made in float64.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.contents import TEXT_FILES, require_whole
from jade_graph.errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_PLAIN = {"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False}


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to one weight: scale * B A, with A (rank, in) and B (out, rank)."""

    scale: float
    b: Tensor
    a: Tensor

    def delta(self) -> Tensor:
        """(out, in), float64."""
        return self.scale * (self.b.double() @ self.a.double())


def changes(adapter: Path) -> dict[str, Change]:
    """What a plain adapter of linear layers changes, by the name of the weight.

    Raises ValueError, KeyError or an error of safetensors for any other.
    """
    from safetensors.torch import load_file

    config: dict[str, Any] = json.loads((adapter / CONFIG).read_text("utf-8"))
    wanted = {name: config.get(name, value) for name, value in _PLAIN.items()}
    if wanted != _PLAIN or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError(f"no plain LoRA: {wanted}")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(adapter / WEIGHTS).items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name} is no part of a LoRA of linear layers")
        halves.setdefault(found[1] + ".weight", {})[found[2]] = tensor
    return {name: Change(scale, pair["B"], pair["A"]) for name, pair in halves.items()}


def require_untied(changed: Iterable[str], base: Path) -> None:
    """Embedding and head that are one tensor cannot be changed apart. Raises ValueError."""
    tied = json.loads((base / "config.json").read_text("utf-8")).get("tie_word_embeddings")
    if tied and any(name.startswith(("lm_head", "model.embed_tokens")) for name in changed):
        raise ValueError("it changes one of two tied ends, embedding and head")


def merge(adapter: Path, base: Path, into: Path) -> None:
    """Write `base` with W + alpha / r * B A for each weight W that `adapter` changes (LoRA, arXiv 2106.09685, (3)).

    Plain adapters of linear layers alone, as PEFT saves them; the registry merges any other with PEFT itself.

    Raises:
        BackboneError: ADAPTER_LOAD.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        require_whole(adapter, adapter=True)
        changed = changes(adapter)
        require_untied(changed, base)
        into.mkdir(parents=True, exist_ok=True)
        for file in sorted(base.glob("*.safetensors")):
            weights = load_file(file)
            for name in [name for name in weights if name in changed]:
                old = weights[name]
                weights[name] = (old.double() + changed.pop(name).delta()).to(old.dtype).contiguous()
            save_file(weights, into / file.name, {"format": "pt"})
        if changed:
            raise ValueError(f"the base has no {sorted(changed)[0]}")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, BackboneError) as error:
        raise BackboneError(
            f"the adapter {str(adapter)!r} does not fit {str(base)!r}: {error}",
            code="ADAPTER_LOAD",
            hint="the base that it was trained on",
        ) from error
    for pattern in TEXT_FILES:
        for path in base.glob(pattern):
            shutil.copyfile(path, into / path.name)
