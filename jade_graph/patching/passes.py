"""Forward passes with activations put in at one layer: a row of the batch for each patch.

Invariant: the model's weights and code stay as they are; every hook is removed when its pass ends. What comes before
the first token that differs is computed once, and layers below the patched one are computed for one row: both
shortcuts are compared with a plain forward pass, and dropped for a model where they disagree.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jade_graph.backbones.fidelity import UNABLE
from jade_graph.patching.anatomy import Block, blocks_of
from jade_graph.patching.pairs import Pair
from jade_graph.patching.recovery import EMBEDDING, Kind

Activations = dict[tuple[Kind, int], Tensor]
"""By kind and layer: (positions, width), from the pass's offset on. Of heads: side by side."""
Saved = list[Activations]
"""Of a run: the prompt's, then those of the tokens of either continuation; without shortcuts of both whole texts."""
_ROUNDING = {torch.float32: 2e-3, torch.float64: 2e-3}
_COARSE = 0.15


class Patch(NamedTuple):
    """What is put into one row: the source's activations at these positions; of one head, or of all the width.

    `ends`: at those of the continuations' own tokens too, where these have several.
    """

    row: int
    kind: Kind
    positions: tuple[int, ...]
    head: int | None = None
    ends: bool = False


class Model:
    """A transformers decoder and where its sites are. Raises `UsageError` LOOK_ARCHITECTURE."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.blocks: tuple[Block, ...] = blocks_of(model)
        self.device = model.get_input_embeddings().weight.device
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.rounding = _ROUNDING.get(model.dtype, _COARSE)

    def logits(self, ids: Tensor, keep: int, cache: Any = None) -> Tensor:
        """Logits (rows, keep, vocabulary) of the last `keep` positions."""
        more: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None, **more)
        found: Tensor = out.logits[:, -keep:].float()
        return found

    def empty_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)


class Passes:
    """The passes of one pair.

    Args:
        shortcuts: share what is equal in all rows; False: whole sequences, every row through every layer.
    """

    def __init__(self, model: Model, pair: Pair, *, shortcuts: bool) -> None:
        self.on, self.pair, self.shortcuts = model, pair, shortcuts
        self.offset = pair.first if shortcuts else 0
        self._begun: Any = None
        if self.offset:
            self._begun = model.empty_cache()
            with torch.inference_mode():
                model.logits(self._ids(pair.clean[: self.offset]), 1, self._begun)

    def difference(
        self,
        ids: Sequence[int],
        *,
        layer: int = 0,
        rows: int = 1,
        patches: Sequence[Patch] = (),
        source: Saved | None = None,
        sink: Saved | None = None,
    ) -> list[float]:
        """The logit difference of every row.

        Args:
            ids: the prompt.
            layer: where the patches go (`EMBEDDING`: in front of the first block).
            source: what is put in.
            sink: filled with the activations of the first row at every layer.
        """
        with torch.inference_mode():
            score = self._shared if self.shortcuts else self._whole
            choice, other = score(ids, _Change(self.on.blocks, layer, rows, tuple(patches), source, sink))
            out = (choice - other).expand(rows)
        return [float(value) for value in out]

    def _shared(self, ids: Sequence[int], change: _Change) -> list[Tensor]:
        """Log-probabilities of both continuations: the prompt once, then what follows it on its cache."""
        cache = self._cache(change.layer, change.rows)
        with change.hooks(0, self.offset):
            first = self.on.logits(self._ids(ids[self.offset :]), 1, cache)[:, 0].log_softmax(-1)
        out = []
        for part, tokens in enumerate((self.pair.choice, self.pair.other), 1):
            total = first[:, tokens[0]]
            if len(tokens) > 1:
                with change.hooks(part, 0, ending=len(tokens) - 1):
                    more = self.on.logits(self._ids(tokens[:-1]), len(tokens) - 1, _clone(cache))
                total = total + _scored(more.log_softmax(-1), tokens[1:])
            out.append(total)
        return out

    def _whole(self, ids: Sequence[int], change: _Change) -> list[Tensor]:
        """The same, each continuation behind the whole prompt, and every row through every layer."""
        out = []
        for part, tokens in enumerate((self.pair.choice, self.pair.other)):
            whole = self._ids([*ids, *tokens[:-1]]).repeat(change.rows, 1)
            with change.hooks(part, 0, spread=False, behind=range(len(ids), whole.shape[1])):
                logits = self.on.logits(whole, len(tokens))
            out.append(_scored(logits.log_softmax(-1), tokens))
        return out

    def _ids(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.on.device)

    def _cache(self, layer: int, rows: int) -> Any:
        """The keys and values of what both prompts begin with: as many rows as each layer has."""
        if self._begun is None:
            return self.on.empty_cache()
        out = _clone(self._begun)
        if rows > 1:
            for held in out.layers[max(layer, 0) :]:
                held.keys = held.keys.expand(rows, -1, -1, -1)
                held.values = held.values.expand(rows, -1, -1, -1)
        return out


def open_passes(model: Model, pair: Pair) -> Passes:
    """The passes of a pair, with shortcuts where they give what a plain pass gives."""
    plain = Passes(model, pair, shortcuts=False)
    (wanted,) = plain.difference(pair.corrupt)
    try:
        quick = Passes(model, pair, shortcuts=True)
        found = quick.difference(pair.corrupt, layer=len(model.blocks) // 2, rows=2)
    except UNABLE:
        return plain
    near = all(abs(value - wanted) <= model.rounding * max(1.0, abs(wanted)) for value in found)
    return quick if near else plain


def _clone(cache: Any) -> Any:
    """A cache that grows by itself: the tensors are shared, for an update makes new ones."""
    out = copy.copy(cache)
    out.layers = [copy.copy(layer) for layer in cache.layers]
    return out


def _scored(logprobs: Tensor, tokens: Sequence[int]) -> Tensor:
    """(rows, n, vocabulary) and n tokens: their log-probability in each row."""
    at = torch.arange(len(tokens), device=logprobs.device)
    return logprobs[:, at, torch.tensor(list(tokens), device=logprobs.device)].sum(-1)


@dataclass(frozen=True, slots=True)
class _Change:
    """What is changed in a pass, and what is kept of it."""

    blocks: Sequence[Block]
    layer: int
    rows: int
    patches: tuple[Patch, ...]
    source: Saved | None
    sink: Saved | None

    @contextmanager
    def hooks(
        self, part: int, offset: int, *, spread: bool = True, behind: Iterable[int] = (), ending: int = 0
    ) -> Iterator[None]:
        """Hung into the model while a part of the run (see `Saved`) is computed.

        Args:
            offset: the position of its first token.
            spread: the rows part at the patched layer; False: they are there from the start.
            behind: positions of the continuation, where it stands in the same pass.
            ending: tokens of the continuation, where it has a pass of its own.
        """
        block = self.blocks[max(self.layer, 0)]
        patches = self.patches
        if ending:
            patches = tuple(p._replace(positions=tuple(range(ending))) for p in patches if p.ends)
        elif behind := tuple(behind):
            patches = tuple(p._replace(positions=(*p.positions, *behind)) if p.ends else p for p in patches)
        with ExitStack() as stack:
            if spread and self.rows > 1:
                _before(stack, block.module, lambda x: x.expand(self.rows, *x.shape[1:]))
            for kind, module in _sites(block):
                mine = [p for p in patches if p.kind == kind]
                if mine and self.source is not None:
                    change = self._patcher(mine, self.source[part][kind, self.layer], offset)
                    hang = _before if kind == "head" or self.layer == EMBEDDING else _after
                    hang(stack, module, change)
            if self.sink is not None:
                kept: Activations = {}
                self.sink.append(kept)
                self._record(stack, kept)
            yield

    def _record(self, stack: ExitStack, kept: Activations) -> None:
        def keep(kind: Kind, layer: int) -> Callable[[Tensor], Tensor]:
            def act(x: Tensor) -> Tensor:
                kept[kind, layer] = x.view(self.rows, -1, x.shape[-1])[0] if x.dim() == 2 else x[0]
                return x

            return act

        _before(stack, self.blocks[0].module, keep("resid", EMBEDDING))
        for i, block in enumerate(self.blocks):
            for kind, module in _sites(block):
                (_before if kind == "head" else _after)(stack, module, keep(kind, i))

    def _patcher(self, patches: Sequence[Patch], saved: Tensor, offset: int) -> Callable[[Tensor], Tensor]:
        heads = self.blocks[max(self.layer, 0)].heads

        def act(x: Tensor) -> Tensor:
            out = x.clone()
            if x.dim() == 2:  # some parts take all positions of all rows at once
                out = out.view(self.rows, -1, x.shape[1])
            for patch in patches:
                at = torch.tensor([p - offset for p in patch.positions], device=x.device)
                if patch.head is None:
                    out[patch.row, at] = saved[at]
                else:
                    size = x.shape[-1] // heads
                    part = slice(patch.head * size, (patch.head + 1) * size)
                    out[patch.row, at, part] = saved[at, part]
            return out.view(x.shape)

        return act


def _sites(block: Block) -> Iterator[tuple[Kind, Any]]:
    """The sites that a block has, and the module before or behind which each is."""
    yield "resid", block.module
    if block.attention is not None:
        yield "attn", block.attention
    if block.mlp is not None:
        yield "mlp", block.mlp
    if block.mix is not None:
        yield "head", block.mix


def _before(stack: ExitStack, module: Any, change: Callable[[Tensor], Tensor]) -> None:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def _after(stack: ExitStack, module: Any, change: Callable[[Tensor], Tensor]) -> None:
    def hook(_: Any, __: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    stack.callback(module.register_forward_hook(hook).remove)


__all__ = ["Activations", "Model", "Passes", "Patch", "Saved", "open_passes"]
