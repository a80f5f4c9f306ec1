"""GGUF, the format of llama.cpp: a model file becomes a Hugging Face folder of safetensors.

Invariant: the weights are those of the file, dequantised; the configuration is plain, so that the folder loads like any
other, without the file and without the package that read it.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jade_graph.errors import BackboneError


def convert(file: Path, into: Path) -> None:
    """Write the model and tokenizer of a GGUF file to a folder, in bfloat16.

    Raises `BackboneError` MODEL_NEEDS_GGUF, BACKBONE_LOAD.
    """
    if find_spec("gguf") is None:
        raise BackboneError(
            "a GGUF file is read with the package gguf, which is not installed.",
            code="MODEL_NEEDS_GGUF",
            hint="pip install 'jade-graph[models]'",
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jade_graph.backbones.weights import LOADING, quiet

    where = {"gguf_file": file.name, "local_files_only": True}
    try:
        # Its reader draws a bar of its own, whatever the logging says.
        with LOADING, quiet(), redirect_stderr(io.StringIO()):
            tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), **where)
            read: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where)
    except Exception as error:  # whatever a reader of a foreign format can raise
        raise BackboneError(
            f"{file.name} cannot be read: {type(error).__name__}: {error}", code="BACKBONE_LOAD"
        ) from error
    # The configuration that was read says that the weights are quantised, and refuses to be saved.
    plain = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    config = type(read.config).from_dict(plain)
    model = type(read)(config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    into.mkdir(parents=True)
    with quiet():
        model.save_pretrained(into, safe_serialization=True)
    tokenizer.save_pretrained(into)
