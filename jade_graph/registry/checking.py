"""Whether a model folder can serve: looked at before it is registered, and when a stored one turns out damaged.

Invariant: each kind of damage has its own code, and the checks read files only; nothing of a folder is executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jade_graph.backbones.codec import load_tokenizer
from jade_graph.backbones.contents import require_whole
from jade_graph.backbones.folders import weight_files
from jade_graph.errors import BackboneError, RegistryError

# Vocabularies are padded for the hardware's sake: by a few per cent, not by more.
_COVERED = 0.9
_KINDS = {"encoder": "a text encoder", "backbone": "a language model"}


def check_weights(folder: Path) -> None:
    """Read every tensor.

    Raises:
        RegistryError: WEIGHTS_TRUNCATED (cut off or no safetensors), WEIGHTS_NOT_FINITE.
    """
    for path in weight_files(folder):
        for name, tensor in _tensors(path):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                bad = int((~tensor.isfinite()).sum())
                raise RegistryError(
                    f"{path.name} holds {bad} values that are no finite numbers in {name!r}.",
                    code="WEIGHTS_NOT_FINITE",
                    hint="training diverged: take an earlier checkpoint",
                )


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as error:
        raise RegistryError(
            f"{path.name} ({path.stat().st_size:,} bytes) is cut off or no safetensors file: {error}",
            code="WEIGHTS_TRUNCATED",
            hint="copy or save the model again",
        ) from error


def check_tokenizer(folder: Path, rows: int) -> None:
    """Whether the tokenizer can belong to a model whose embedding has `rows` rows.

    Raises:
        RegistryError: TOKENIZER_MISMATCH. BackboneError: BACKBONE_LOAD when it does not load.
    """
    tokenizer = load_tokenizer(folder)
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > rows or size < math.floor(_COVERED * rows):
        raise mismatch(f"it has {size} tokens, and the model has {rows}")


def mismatch(why: str) -> RegistryError:
    return RegistryError(
        f"the tokenizer is not this model's: {why}.",
        code="TOKENIZER_MISMATCH",
        hint="copy tokenizer.json and tokenizer_config.json of the model that was trained",
    )


def check_kind(folder: Path, wanted: str) -> bool:
    """Whether the model is an encoder. Raises `RegistryError` VERSION_KIND where another kind is `wanted`."""
    from jade_graph.retrieval.pooling import is_encoder

    found = "encoder" if is_encoder(folder) else "backbone"
    if found != wanted:
        raise RegistryError(
            f"the model {folder.name!r} is {_KINDS[found]}, and another kind is registered here: {_KINDS[wanted]}.",
            code="VERSION_KIND",
            hint="jade register FOLDER takes backbones, jade encoders register FOLDER encoders",
        )
    return found == "encoder"


def check_encoder(folder: Path) -> None:
    """Weights, tokenizer, and that the encoder loads whole and gives finite vectors.

    Raises:
        RegistryError: WEIGHTS_TRUNCATED, WEIGHTS_NOT_FINITE. BackboneError, RetrievalError: what loading raises.
    """
    import numpy as np

    from jade_graph.retrieval.encoder import TransformerEncoder

    check_weights(folder)
    require_whole(folder)
    encoder = TransformerEncoder(folder, spec=str(folder), name=folder.name, dtype="float32", device="cpu")
    vectors = encoder.encode(["Who directed it?", "It was directed by somebody else."])
    if not np.isfinite(vectors).all() or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise RegistryError(
            "the encoder computes vectors that are no finite numbers.",
            code="WEIGHTS_NOT_FINITE",
            hint="training diverged: take an earlier checkpoint, or a smaller learning rate",
        )


def check_model(folder: Path) -> None:
    """Everything: weights, tokenizer, and that the model loads whole and computes finite numbers.

    Raises:
        RegistryError: WEIGHTS_TRUNCATED, WEIGHTS_NOT_FINITE, WEIGHTS_INCOMPLETE, TOKENIZER_MISMATCH.
        BackboneError: what loading raises.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from jade_graph.backbones.codec import Codec
    from jade_graph.backbones.weights import LOADING, quiet

    check_weights(folder)
    require_whole(folder)
    try:
        with LOADING, quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype="auto",
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            model, about = loaded
    except Exception as error:  # transformers raises whatever its parsers raise
        raise BackboneError(
            f"the model in {folder.name!r} does not load: {type(error).__name__}: {error}",
            code="BACKBONE_LOAD",
            hint="any causal LM of stock transformers, saved as safetensors",
        ) from error
    lacking = sorted(about.get("missing_keys") or ()) + sorted(str(k) for k in about.get("mismatched_keys") or ())
    if lacking:
        raise RegistryError(
            f"the weights lack {len(lacking)} tensors that config.json asks for, such as {lacking[0]!r}.",
            code="WEIGHTS_INCOMPLETE",
            hint="save config.json and weights of one model together",
        )
    check_tokenizer(folder, int(model.get_input_embeddings().weight.shape[0]))
    codec = Codec.from_folder(folder)
    ids = codec.encode_text("Who directed it?") or [codec.eos_token_id]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits
    if not bool(logits.isfinite().all()):
        raise RegistryError(
            "the model computes values that are no finite numbers.",
            code="WEIGHTS_NOT_FINITE",
            hint="training diverged, or the number format is too small: take an earlier checkpoint",
        )
