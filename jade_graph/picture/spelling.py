"""Spells a run's token ids with the tokenizer of the model that wrote them, where it is on this machine.

Invariant: never a guess: a tokenizer counts only if it spells an action of the run exactly as it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jade_graph.backbones.folders import BUNDLED
from jade_graph.types import Run

if TYPE_CHECKING:
    from jade_graph.picture.details import Pieces
    from jade_graph.settings.fields import Settings


def speller(settings: Settings, run: Run) -> Pieces | None:
    """For the model of the settings; None where that is not the model of the run, or has no tokenizer here."""
    decode = _decoder(settings.backbone)
    return None if decode is None else spelled_by(decode, run)


def spelled_by(decode: Callable[[Sequence[int]], str], run: Run) -> Pieces | None:
    """Pieces by a `decode` function, if it spells the run's first action as recorded."""
    first = next((t for t in run.transitions if t.action_token_ids), None)
    if first is None or "".join(pieces(decode, first.action_token_ids)) not in _endings(first.action_text, decode, run):
        return None
    return lambda ids: pieces(decode, ids)


def _endings(text: str, decode: Callable[[Sequence[int]], str], run: Run) -> tuple[str, ...]:
    """The text alone, and followed by any one token: the end token is spelled by some tokenizers."""
    last = next(t.action_token_ids[-1] for t in run.transitions if t.action_token_ids)
    return text, text + decode([last])


def pieces(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """One text per token, that together are the text: a character of several tokens stands with the last of them."""
    out: list[str] = []
    known = ""
    for i in range(1, len(ids) + 1):
        text = decode(ids[:i])
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}") if i < len(ids) else text
        if not whole.startswith(known):  # cleaned up by the tokenizer: take it token by token
            return [decode([token]) for token in ids]
        out.append(whole[len(known) :])
        known = whole
    return out


@lru_cache(maxsize=4)
def _decoder(backbone: str) -> Callable[[Sequence[int]], str] | None:
    """Of a folder with a tokenizer; a bundled model's by its name. Loads no more than the tokenizer itself."""
    file = (BUNDLED.get(backbone) or Path(backbone)) / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # what the library raises for a file that it cannot read
        return None
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))
