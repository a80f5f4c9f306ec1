"""How a folder's encoder makes one vector of many: pooling, the end token, and the length of its prompts.

Invariant: what was trained is what is used. A trained encoder says all of it in `jade_encoder.json`; other folders are
read as sentence-transformers writes them, old and new; a causal language model that says nothing pools its last token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jade_graph.errors import RetrievalError

Mode = Literal["mean", "cls", "last"]

ENCODER_FILE = "jade_encoder.json"
"""Beside the weights of an encoder that was trained here; a folder with it is an encoder, and no backbone."""

SHOWN = 20
"""Passages in a listwise prompt: the gain saturates there (E2Rank)."""

MOST_PROMPT = 8192
_LEGACY = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_NEW: dict[str, Mode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """`mode`: the mean of all tokens, the first, or the last (behind which an end token is put).

    `prompt_tokens`, `prompt_documents`: of a listwise prompt.
    """

    mode: Mode
    prompt_tokens: int = 0
    prompt_documents: int = SHOWN

    @classmethod
    def of(cls, folder: Path) -> Pooling:
        """Read a folder. Raises `RetrievalError` BAD_ENCODER."""
        config = read_json(folder / "config.json")
        most = min(MOST_PROMPT, int(config.get("max_position_embeddings") or 0) or MOST_PROMPT)
        if "roberta" in str(config.get("model_type") or ""):
            most -= 2  # its positions begin behind the padding's
        own = read_json(folder / ENCODER_FILE)
        if own:
            mode = own.get("pooling")
            if mode not in ("mean", "cls", "last"):
                raise _unknown(folder, f"{ENCODER_FILE} says {mode!r}")
            shown = int(own.get("prompt_documents") or SHOWN)
            return cls(mode, min(most, int(own.get("prompt_tokens") or most)), shown)
        pooling = read_json(folder / "1_Pooling" / "config.json")
        if not pooling:
            causal = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
            return cls("last" if causal else "mean", most)
        if "pooling_mode" in pooling:
            told = pooling["pooling_mode"]
            names = [told] if isinstance(told, str) else list(told or ())
        else:
            names = [name for name, used in pooling.items() if name.startswith("pooling_mode_") and used]
            names = [{"mean": "mean", "cls": "cls", "last": "lasttoken"}.get(_LEGACY.get(n, ""), n) for n in names]
            names = names or ["mean"]
        if len(names) != 1 or names[0] not in _NEW:
            raise _unknown(folder, f"it pools by {', '.join(map(str, names))}")
        return cls(_NEW[names[0]], most)

    def ids(self, tokenizer: Any, texts: Sequence[str], most: int) -> list[list[int]]:
        """Token ids of texts, cut to `most`; the end token stays where the last token is pooled."""
        if self.mode != "last":
            return list(tokenizer(list(texts), truncation=True, max_length=most)["input_ids"])
        end = tokenizer.eos_token_id
        found = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
        if end is None:
            return [list(row) for row in found]
        return [[*row[: most - (row[-1:] != [end])], *([] if row[-1:] == [end] else [end])] for row in found]

    def pool(self, hidden: Any, mask: Any) -> Any:
        """One row for each text: `hidden` (rows, tokens, dim), `mask` (rows, tokens), padded on the right."""
        if self.mode == "cls":
            return hidden[:, 0]
        if self.mode == "last":
            import torch

            return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.sum(1) - 1]
        weights = mask.unsqueeze(-1).float()
        return (hidden * weights).sum(1) / weights.sum(1)


def readable(folder: Path) -> int:
    """Tokens of a text that a folder's encoder reads; longer ones are cut. 512 where the folder does not say.

    Since version 6 sentence-transformers leaves it to the tokenizer's own `model_max_length`.
    """
    settings = read_json(folder / "sentence_bert_config.json")
    own = read_json(folder / ENCODER_FILE).get("max_tokens") or settings.get("max_seq_length")
    if own or "transformer_task" not in settings:
        return int(own or 512)
    most = int(read_json(folder / "config.json").get("max_position_embeddings") or MOST_PROMPT)
    return min(most, int(read_json(folder / "tokenizer_config.json").get("model_max_length") or 512))


def is_encoder(folder: Path) -> bool:
    """Whether a folder says of itself that it is a text encoder."""
    return (folder / ENCODER_FILE).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """An object of a file; {} where there is no such file, or no object in it."""
    if not path.is_file():
        return {}
    loaded = json.loads(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}


def _unknown(folder: Path, what: str) -> RetrievalError:
    return RetrievalError(
        f"{str(folder)!r} pools neither by mean nor by [CLS] nor by the last token: {what}.", code="BAD_ENCODER"
    )
