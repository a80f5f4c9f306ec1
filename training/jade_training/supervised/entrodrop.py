"""EntroDrop (arXiv 2512.23422): predictable tokens are hidden from the model, more of them as training goes on.

Invariant: only action tokens whose entropy under the start model is low are ever hidden, never a prompt's and never a
special one; which are hidden at a step follows from the seed, the step and the example alone, so that micro-batches and
resumption change nothing. A strength of 0 is plain training, bit for bit.

The paper's constants were not seen; these are ours (docs/methods/entrodrop.md):

    H_t = -sum_v p(v | x_<t) log p(v | x_<t)      of the start model, once
    E   = the action tokens with H_t <= the quantile q of all of them
    gamma(s) = gmax * sigmoid(k (s / S - s0))     at step s of S
    m_t ~ Bernoulli(gamma(s)) for t in E; the input embedding of a token with m_t = 1 is 0 (or a random token's)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.errors import UsageError
from jade_training.supervised.batches import Pair, action_logits, digest

if TYPE_CHECKING:
    from torch import Tensor

_CHOICES = {"apply": ("input", "loss", "both"), "mask": ("zero", "random"), "of": ("low", "high", "all")}


@dataclass(frozen=True, slots=True)
class EntroDrop:
    """How strongly, when, and which tokens.

    Attributes:
        gmax: largest share of the eligible tokens that are hidden; 0 hides none.
        q: quantile of entropy up to which a token is eligible.
        k, s0: steepness of the rise, and the share of training at which half of `gmax` is reached.
        apply: "input": the token is hidden from what follows it, and is still learned; "loss": it is not learned;
            "both".
        mask: what stands for a hidden token: "zero" (its embedding is 0), or "random" (another token of the example).
        of: "low" as published; controls at as many hidden tokens: "high" (as many of the least predictable), "all"
            (uniform dropout over all action tokens).
    """

    gmax: float = 0.3
    q: float = 0.5
    k: float = 10.0
    s0: float = 0.3
    apply: Literal["input", "loss", "both"] = "input"
    mask: Literal["zero", "random"] = "zero"
    of: Literal["low", "high", "all"] = "low"

    def __post_init__(self) -> None:
        """Raises `UsageError` BAD_ENTRODROP."""
        for name in ("gmax", "q", "s0"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise _wrong(f"{name}={getattr(self, name)!r}", f"{name} is from 0 to 1")
        if not (math.isfinite(self.k) and self.k > 0):
            raise _wrong(f"k={self.k!r}", "k is above 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise _wrong(f"{name}={getattr(self, name)!r}", f"{name} is one of {', '.join(known)}")

    @classmethod
    def parse(cls, text: str) -> EntroDrop:
        """`gmax=.3,q=.5`; an empty text is the defaults. Raises `UsageError` BAD_ENTRODROP."""
        known = {f.name: f for f in fields(cls)}
        found: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (x.strip() for x in part.partition("="))
            if not equals or name not in known:
                raise _wrong(part, f"known are {', '.join(known)}")
            try:
                found[name] = value if name in _CHOICES else float(value)
            except ValueError:
                raise _wrong(part, f"{name} is a number") from None
        return cls(**found)

    def gamma(self, step: int, steps: int) -> float:
        """The share of eligible tokens that are hidden at a step, counted from 0."""
        return self.gmax / (1.0 + math.exp(-self.k * (step / max(steps, 1) - self.s0)))


def _wrong(what: str, hint: str) -> UsageError:
    return UsageError(
        f"EntroDrop does not take {what!r}.", code="BAD_ENTRODROP", hint=f"--entrodrop gmax=.3,q=.5; {hint}"
    )


# --- entropies --------------------------------------------------------------------------------------------------------
def entropies(model: Any, examples: Sequence[Pair], *, name: str = "", cache: Path | None = None) -> list[Tensor]:
    """The entropy (nats) of what the model expects at each action token: a tensor (action,) for each example.

    Args:
        name: of the weights (their content version): with the examples it names the file in `cache`.
    """
    import torch
    from safetensors.torch import load_file, save_file

    path = None
    if cache is not None and name:
        path = cache / f"{hashlib.sha256(f'{name} {digest(examples)}'.encode()).hexdigest()[:24]}.safetensors"
        if path.is_file():
            return _split(load_file(path)["entropy"], examples)
    found = []
    training = model.training
    model.eval()
    with torch.inference_mode():
        for prompt, action in examples:
            log = action_logits(model, prompt, action).log_softmax(-1)
            found.append(-(log.exp() * log).sum(-1).cpu())
    model.train(training)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"entropy": torch.cat(found)}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
    return found


def _split(entropy: Tensor, examples: Sequence[Pair]) -> list[Tensor]:
    """One row as a tensor for each example."""
    found, at = [], 0
    for _, action in examples:
        found.append(entropy[at : at + len(action)])
        at += len(action)
    return found


@dataclass(frozen=True, slots=True)
class Eligible:
    """Which action tokens may be hidden: a row of booleans for each example; `scale` is a factor on gamma."""

    rows: tuple[tuple[bool, ...], ...]
    threshold: float
    scale: float = 1.0

    @property
    def share(self) -> float:
        """Of all action tokens."""
        return sum(map(sum, self.rows)) / max(1, sum(map(len, self.rows)))


def eligible(
    settings: EntroDrop, found: Sequence[Tensor], examples: Sequence[Pair], special: frozenset[int]
) -> Eligible:
    """The tokens of a corpus that may be hidden: those of low entropy, without special ones."""
    import torch

    everything = torch.cat([row.double() for row in found])
    threshold = float(everything.quantile(settings.q))
    plain = [[token not in special for token in action] for _, action in examples]
    low = [
        [p and float(h) <= threshold for h, p in zip(row, ok, strict=True)]
        for row, ok in zip(found, plain, strict=True)
    ]
    if settings.of == "low":
        return Eligible(tuple(map(tuple, low)), threshold)
    count, whole = sum(map(sum, low)), sum(map(sum, plain))
    if settings.of == "all":
        return Eligible(tuple(map(tuple, plain)), threshold, count / max(1, whole))
    ranked = sorted(
        ((float(h), i, j) for i, row in enumerate(found) for j, h in enumerate(row) if plain[i][j]), reverse=True
    )
    chosen = {(i, j) for _, i, j in ranked[:count]}
    rows = tuple(tuple((i, j) in chosen for j in range(len(action))) for i, (_, action) in enumerate(examples))
    return Eligible(rows, threshold)


# --- in training ------------------------------------------------------------------------------------------------------
class Dropping:
    """What a trainer asks at each micro-batch; counts what was hidden."""

    def __init__(self, settings: EntroDrop, which: Eligible, seed: int) -> None:
        self.settings, self.which, self.seed = settings, which, seed
        self.hidden = self.possible = 0
        self.expected = 0.0

    def columns(self, examples: Sequence[Pair]) -> dict[str, list[Any]]:
        """Further columns of the trainer's table: eligible tokens, and each example's own number."""
        rows = zip(examples, self.which.rows, strict=True)
        return {
            "droppable": [[0] * len(prompt) + [int(x) for x in row] for (prompt, _), row in rows],
            "place": list(range(len(examples))),
        }

    def masks(self, inputs: Mapping[str, Any], step: int, steps: int) -> Tensor:
        """Which tokens (rows, places) are hidden at a step."""
        import torch

        droppable = inputs["droppable"].bool()
        share = min(1.0, self.settings.gamma(step, steps) * self.which.scale)
        out = torch.zeros_like(droppable)
        for row, place in enumerate(inputs["place"].tolist()):
            length = int(inputs["attention_mask"][row].sum())
            drawn = torch.rand(length, generator=self._generator(step, place))
            out[row, -length:] = (drawn < share).to(out.device)
        out &= droppable
        count = int(droppable.sum())
        self.hidden, self.possible = self.hidden + int(out.sum()), self.possible + count
        self.expected += share * count
        return out

    def _generator(self, step: int, place: int) -> Any:
        import torch

        text = f"entrodrop {self.seed} {step} {place}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))

    def apply(self, model: Any, inputs: dict[str, Any], step: int, steps: int) -> dict[str, Any]:
        """The micro-batch as the model is to see it, without the columns of its own."""
        import torch

        hidden = self.masks(inputs, step, steps)
        given = {name: value for name, value in inputs.items() if name not in ("droppable", "place")}
        if not bool(hidden.any()):
            return given
        if self.settings.apply != "input":
            given["labels"] = torch.where(hidden, -100, given["labels"])
        if self.settings.apply == "loss":
            return given
        ids = given["input_ids"]
        if self.settings.mask == "random":
            given["input_ids"] = torch.where(hidden, self._others(inputs, step), ids)
            return given
        embedded = model.get_input_embeddings()(given.pop("input_ids"))
        given["inputs_embeds"] = embedded * ~hidden[..., None]
        return given

    def _others(self, inputs: Mapping[str, Any], step: int) -> Tensor:
        """For each place a token of the same example, drawn anew."""
        import torch

        ids: Tensor = inputs["input_ids"].clone()
        for row, place in enumerate(inputs["place"].tolist()):
            length = int(inputs["attention_mask"][row].sum())
            generator = self._generator(step, -1 - place)
            drawn = torch.randint(length, (length,), generator=generator).to(ids.device)
            ids[row, -length:] = ids[row, -length:][drawn]
        return ids

    def figures(self) -> dict[str, float]:
        """`entropy_threshold` (nats), `eligible` (share of action tokens); of these `hidden`, `hidden_expected`."""
        return {
            "entropy_threshold": self.which.threshold,
            "eligible": self.which.share,
            "hidden": self.hidden / max(1, self.possible),
            "hidden_expected": self.expected / max(1, self.possible),
        }


__all__ = ["Dropping", "Eligible", "EntroDrop", "eligible", "entropies"]
