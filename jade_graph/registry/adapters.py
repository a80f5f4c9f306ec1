"""LoRA adapters: a small change of a named base.

Invariant: an adapter is stored as it is, with the name and the weights' hash of its base; what runs is the merged
model, made anew wherever it is fetched and recognised by its own hash. Merging is done in float64: its result does not
depend on the order in which a machine adds.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from jade_graph.backbones.contents import TEXT_FILES, require_whole
from jade_graph.backbones.folders import content_version, find_folder
from jade_graph.backbones.merging import answers, merged, require_like
from jade_graph.backbones.weights import LOADING, quiet
from jade_graph.errors import BackboneError, RegistryError
from jade_graph.registry.bundle import ADAPTER


def base_folder(name: str) -> Path:
    """The folder of a base: "tiny", a local folder, a hub id, or a registered version."""
    return find_folder(name)


def weights_of(folder: Path) -> str:
    """The hash of a folder's weights, without a name."""
    return content_version(folder).rpartition("@")[2]


def merge(adapter: Path, base: Path, into: Path) -> None:
    """Write the base with the adapter merged in as a plain Hugging Face folder.

    The tokenizer and jade.json are the adapter's where it brings them, else the base's.

    Raises:
        RegistryError: ADAPTER_NEEDS_PEFT. BackboneError: ADAPTER_LOAD, EXPORT_DIFFERS.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise RegistryError(
            "a LoRA adapter is merged by PEFT, which is not installed.",
            code="ADAPTER_NEEDS_PEFT",
            hint="pip install 'jade-graph[train]'",
        ) from error
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    require_whole(base)
    require_whole(adapter, adapter=True)
    try:
        config: Any = AutoConfig.from_pretrained(str(base), trust_remote_code=False, local_files_only=True)
        stored = getattr(config, "dtype", None) or torch.float32
        with LOADING, quiet(), warnings.catch_warnings():
            # PEFT asks transformers by a name that this one calls old: nothing that a user could change.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(base), dtype=torch.float64, trust_remote_code=False, use_safetensors=True, local_files_only=True
            )
            adapted = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
            wanted = answers(adapted)
            merged(adapted).to(stored).save_pretrained(into, safe_serialization=True)
    except Exception as error:  # PEFT and transformers raise whatever their parsers raise
        raise BackboneError(
            f"the adapter does not fit its base {str(base)!r}: {type(error).__name__}: {error}",
            code="ADAPTER_LOAD",
            hint="name the base that it was trained on with --base",
        ) from error
    require_like(into, wanted)
    for pattern in TEXT_FILES:
        for folder in (base, adapter):
            for path in folder.glob(pattern):
                if path.name in (ADAPTER, "config.json", "generation_config.json") or path.name.endswith("index.json"):
                    continue
                if path.name not in ("figures.json",):
                    shutil.copyfile(path, into / path.name)
