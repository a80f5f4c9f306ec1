"""Whether a model's batches compute what the model computes: asked once, of models that are not known.

Invariant: the answer is measured against plain forward passes of whole sequences, without cache and without padding, in
the model's own number format; a model that fails in batches is decoded row by row, and one that fails there too without
its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from jade_graph.backbones.forward import HFSession, Session

Ability = Literal["batches", "rows", "plain"]
"""What may be trusted: rows together, a row at a time, or nothing but whole forward passes."""

KNOWN = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox"),
        *("olmo", "olmo2", "smollm3", "stablelm", "starcoder2", "granite", "cohere", "cohere2", "glm4", "exaone4"),
        *("mixtral", "qwen2_moe", "gpt_oss", "opt", "bloom", "gptj", "gpt_bigcode", "lfm2"),
    )
)
"""Model types whose batches are right, as the tests measure: nothing is asked of them."""
_LENGTHS = (3, 19, 7, 26, 12)
_NEW = 3
_BUDGET = 1 << 14
# Root of the mean squared difference of log-probabilities (nats) that rounding explains. In 16 bits it depends on the
# model: three times what a row alone shows is still rounding, up to a bound.
_ROUNDING = {torch.float32: 2e-3, torch.float64: 2e-3}
_COARSE, _COARSEST = 0.05, 0.15
UNABLE = (RuntimeError, ValueError, IndexError, AttributeError, TypeError, NotImplementedError)
"""What stock models raise for a cache that they cannot pad, cut or share."""


def ability(model: Any) -> Ability:
    """What of this model may be trusted. Cheap: some twenty forward passes of short rows, none for known models."""
    if model.config.get_text_config().model_type in KNOWN:
        return "batches"
    with torch.inference_mode():
        return measured(model)


def measured(model: Any, make: Callable[[Any], Session] | None = None) -> Ability:
    """`ability`, measured whatever the model is."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    prompts = [[(7 * row + 3 * at + 1) % vocabulary for at in range(length)] for row, length in enumerate(_LENGTHS)]
    added = [[(5 * row + at + 2) % vocabulary for at in range(_NEW)] for row in range(len(prompts))]
    wanted = [_plain(model, prompt, more) for prompt, more in zip(prompts, added, strict=True)]
    limit = _ROUNDING.get(model.dtype, _COARSE)
    session = make or (lambda it: HFSession(it, _BUDGET))
    together = _far(_tried(lambda: _decoded(session(model), prompts, added, drop=True)), wanted)
    if together <= limit:
        return "batches"
    pairs = list(zip(prompts, added, strict=True))
    alone = _far(_tried(lambda: [_decoded(session(model), [p], [a])[0] for p, a in pairs]), wanted)
    if model.dtype not in _ROUNDING:
        limit = max(limit, min(3 * alone, _COARSEST))
    return "batches" if together <= limit else "rows" if alone <= limit else "plain"


def _tried(decode: Callable[[], list[Tensor]]) -> list[Tensor]:
    """What decoding gives; nothing where the model's cache can be neither padded nor cut."""
    try:
        return decode()
    except UNABLE:
        return []


def _plain(model: Any, prompt: Sequence[int], more: Sequence[int]) -> Tensor:
    """Log-probabilities (new tokens, vocabulary) behind the prompt and behind all but the last of `more`."""
    whole = torch.tensor([[*prompt, *more[:-1]]], device=model.device)
    logits: Tensor = model(input_ids=whole, use_cache=False).logits[0, len(prompt) - 1 :]
    return logits.float().log_softmax(-1)


def _decoded(
    session: Session, prompts: Sequence[Sequence[int]], added: Sequence[Sequence[int]], *, drop: bool = False
) -> list[Tensor]:
    """The same by decoding; with `drop` the second row leaves after its first token, and the last takes its place."""
    steps = [session.admit(prompts, [_NEW] * len(prompts))]
    rows = list(range(len(prompts)))
    found: list[list[Tensor]] = [[] for _ in prompts]
    for at in range(_NEW):
        for place, row in enumerate(rows):
            found[row].append(steps[-1][place].float().log_softmax(-1))
        if at == _NEW - 1:
            break
        steps.append(session.step(torch.tensor([added[row][at] for row in rows])))
        if drop and at == 0:
            for place, row in enumerate(rows):
                found[row].append(steps[-1][place].float().log_softmax(-1))
            session.drop(torch.tensor([1]), torch.tensor([len(rows) - 1]), len(rows) - 1)
            rows[1] = rows.pop()
            steps.append(session.step(torch.tensor([added[row][1] for row in rows])))
            for place, row in enumerate(rows):
                found[row].append(steps[-1][place].float().log_softmax(-1))
            break
    return [torch.stack(each) for each in found]


def _far(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest root mean square difference over rows and tokens; infinite where a number is none."""
    worst = 0.0 if found else float("inf")
    for one, other in zip(found, wanted, strict=bool(found)):
        gap = (one - other[: len(one)].to(one.device)).square().mean(-1).sqrt()
        worst = max(worst, float(gap.max()) if bool(gap.isfinite().all()) else float("inf"))
    return worst


class PlainSession:
    """A batch without a cache: every step is a whole forward pass of every row. Slow, and right for any model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rows: list[list[int]] = []
        self.padded_tokens = 0

    @property
    def open(self) -> bool:
        return False

    def admit(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> Tensor:
        del new_tokens
        self._rows = [list(prompt) for prompt in prompts]
        return self._logits()

    def step(self, tokens: Tensor) -> Tensor:
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
        return self._logits()

    def _logits(self) -> Tensor:
        self.padded_tokens += sum(map(len, self._rows))
        device = self._model.device
        parts = [
            self._model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[:, -1]
            for row in self._rows
        ]
        return torch.cat(parts)

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
            self._rows[hole] = self._rows[mover]
        del self._rows[count:]

    def wipe(self, rows: Sequence[int]) -> None:
        """Rows know nothing of each other."""

    def close(self) -> None:
        """Nothing is kept."""
