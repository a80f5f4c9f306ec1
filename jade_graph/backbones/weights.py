"""Loads a model's weights, in a precision and on a device that suit it.

Invariant: only safetensors and stock transformers code are loaded; nothing is executed from a model's folder.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from jade_graph.backbones.contents import require_whole
from jade_graph.errors import BackboneError

# Below this, float32: the weights fit the caches, and log-probabilities agree with a float32 trainer to 1e-5.
SMALL_MODEL = 100_000_000
# transformers patches its own modules while it loads: of two threads at once, one may get a model with tensors missing.
LOADING = threading.Lock()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | None) -> torch.device:
    """CUDA, else Apple's MPS, else the CPU. Raises `BackboneError` BACKBONE_DEVICE."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device is None:
        return torch.device(available[0])
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BackboneError(f"unknown device {device!r}.", code="BACKBONE_DEVICE", known=available) from error
    if chosen.type not in available or (chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()):
        raise BackboneError(f"the device {device!r} is not available here.", code="BACKBONE_DEVICE", known=available)
    return chosen


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AMX or AVX512-BF16); emulated, it is 5 times slower."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(probe()) for name in probes if (probe := getattr(torch.cpu, name, None)) is not None)


def choose_dtype(dtype: str | None, device: torch.device, parameters: int) -> torch.dtype:
    """float32 for small models; else bfloat16 where the device has it, float16 on older GPUs, float32 on older CPUs.

    Raises:
        BackboneError: BACKBONE_DTYPE.
    """
    if dtype is not None:
        if dtype not in DTYPES:
            raise BackboneError(f"unknown dtype {dtype!r}.", code="BACKBONE_DTYPE", known=sorted(DTYPES))
        return DTYPES[dtype]
    if parameters < SMALL_MODEL:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars from transformers: standard error belongs to the caller."""
    from transformers.utils import logging as library_logging

    logging: Any = library_logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal LM in `folder`, in evaluation mode, without gradients.

    Raises `BackboneError` BACKBONE_LOAD, BACKBONE_FILES, WEIGHTS_TRUNCATED.
    """
    from transformers import AutoModelForCausalLM

    require_whole(folder)
    try:
        with LOADING, quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
            )
        model = model.to(device)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise BackboneError(
            f"the model in {str(folder)!r} does not load: {type(error).__name__}: {error}",
            code="BACKBONE_LOAD",
            hint="any causal LM of stock transformers, saved as safetensors",
        ) from error
    model.eval()
    model.requires_grad_(False)
    return model


def max_context(model: Any, tokenizer: Any) -> int:
    """Positions the model was made for, within what its tokenizer admits (tokens)."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    limit = getattr(tokenizer, "model_max_length", None)
    known = [int(value) for value in (positions, limit) if isinstance(value, int) and 0 < value < 10**9]
    return min(known, default=2048)
