"""A batch through a `LeanModel`: prompts join it and rows leave it between any two steps.

Invariant: a row's logits do not depend on the other rows, beyond the order in which float32 sums are taken. Prompts are
computed side by side without padding; a beginning that an earlier prompt had is copied instead, from the keys and
values that the same weights gave for the same tokens (`prefix_cache`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from jade_graph.backbones.prefix_cache import Recalled, Slots, count
from jade_graph.backbones.sampler import move_rows
from jade_graph.backbones.slabs import Part

if TYPE_CHECKING:
    from jade_graph.backbones.lean import Layer, LeanModel


@dataclass(slots=True)
class _Prompt:
    """A prompt to be computed: its tokens, where its keys and values go, and what of them is known already.

    `room`: (layers, 2, heads, columns, width), of which the first `known` tokens are in the cache.
    """

    tokens: Sequence[int]
    room: Tensor
    recalled: Recalled
    known: int = field(init=False)
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        self.known = count(self.recalled.known)

    @property
    def left(self) -> int:
        return len(self.tokens) - self.known


class LeanSession:
    """A `forward.Session` for a `LeanModel`.

    Args:
        lean: the model. Where its weights are is read once, here.
        budget: most prompt tokens in one forward pass, unless a prompt alone has more.
    """

    open = True

    def __init__(self, lean: LeanModel, budget: int) -> None:
        self._lean = lean
        self._layers = lean.layers()
        self._budget = budget
        self._slabs = lean.take_slabs()
        self._positions = torch.zeros(0, dtype=torch.long)
        self._cache = lean.take_cache()
        self._cos = self._sin = torch.zeros(0, 1, lean.head_dim, dtype=lean.dtype)
        width = lean.model.model.embed_tokens.weight.shape[1]
        self._mean = torch.full((width, 1), 1.0 / width, dtype=torch.float32)
        self._eps = torch.tensor([[lean.eps]], dtype=torch.float32)
        self.padded_tokens = 0

    def close(self) -> None:
        self._lean.keep(self._slabs, self._cache)

    def wipe(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._slabs.wipe(row)
        self._cache.clear()  # whose numbers they were is not told

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        self._slabs.drop(holes.tolist(), movers.tolist(), count)
        self._positions = move_rows(self._positions, holes, movers, count)

    def admit(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> Tensor:
        first = len(self._slabs)
        lengths = [len(prompt) for prompt in prompts]
        longest = max(length + new for length, new in zip(lengths, new_tokens, strict=True))
        if longest > len(self._cos):
            self._cos, self._sin = (table.unsqueeze(1).to(self._lean.dtype) for table in self._lean.rotary(longest))
        self._slabs.add(lengths)
        recalled = self._cache.recall(prompts)
        asked = [
            _Prompt(prompt, self._slabs.room(row), found)
            for row, (prompt, found) in enumerate(zip(prompts, recalled, strict=True), first)
        ]
        logits = torch.cat([self._compute(group) for group in _groups(asked, self._budget)])
        self._positions = torch.cat([self._positions, torch.tensor(lengths)])
        return logits

    def _compute(self, prompts: Sequence[_Prompt]) -> Tensor:
        """One forward pass over what is left of these prompts, side by side: logits (prompts, vocabulary)."""
        lean = self._lean
        tokens: list[int] = []
        columns: list[int] = []
        spans: list[tuple[_Prompt, int, int]] = []
        slots: Slots = []
        remembered: list[int] = []
        for prompt in prompts:
            end = len(tokens) + prompt.left
            spans.append((prompt, len(tokens), end))
            slots += prompt.recalled.fresh
            begin = end - len(prompt.tokens) + prompt.recalled.at
            remembered += range(begin, begin + count(prompt.recalled.fresh))
            tokens += prompt.tokens[prompt.known :]
            columns += range(prompt.known, len(prompt.tokens))
            if prompt.known and prompt.left > 1:
                ours = torch.arange(prompt.known, len(prompt.tokens)).unsqueeze(1)
                empty = torch.zeros(prompt.left, len(prompt.tokens), dtype=lean.dtype)
                prompt.mask = empty.masked_fill_(torch.arange(len(prompt.tokens)) > ours, float("-inf"))
        self.padded_tokens += len(tokens)
        alone = len(prompts) == 1 and not prompts[0].known
        places = slice(len(tokens)) if alone else torch.tensor(columns)
        final = torch.tensor([end - 1 for _, _, end in spans])
        to, of = _index([slot for each in slots for slot in each]), _index(remembered)
        cos, sin = self._cos[places], self._sin[places]
        x = functional.embedding(torch.tensor(tokens), lean.model.model.embed_tokens.weight)
        for number, layer in enumerate(self._layers):
            h = self._norm(x, layer.norm)
            fresh = self._keys_values(layer, h, cos, sin)
            if slots:
                for part, new in zip(self._cache.kv[number], fresh, strict=True):
                    part[:, to] = new[of].transpose(0, 1)
            for prompt, begin, end in spans:
                room = prompt.room[number]
                column = 0
                for each in prompt.recalled.known:
                    room[:, :, column : column + len(each)] = self._cache.kv[number, :, :, each.start : each.stop]
                    column += len(each)
                for part, new in zip(room, fresh, strict=True):
                    part[:, prompt.known : len(prompt.tokens)] = new[begin:end].transpose(0, 1)
            last = number + 1 == len(self._layers)
            if last:  # only what the next token is drawn from
                x, h, cos, sin = x[final], h[final], cos[final], sin[final]
            q = self._queries(layer, h, cos, sin)
            attended = [
                self._look_back(number, prompt, q[row : row + 1] if last else q[begin:end], last)
                for row, (prompt, begin, end) in enumerate(spans)
            ]
            x = self._finish(layer, x, attended[0] if len(attended) == 1 else torch.cat(attended))
        return self._logits(x)

    def _look_back(self, number: int, prompt: _Prompt, q: Tensor, last: bool) -> Tensor:
        """Attention (n, heads * width) of the queries (n, heads, width) of a prompt's last n tokens over all before."""
        keys, values = prompt.room[number, :, :, : len(prompt.tokens)].unsqueeze(1)
        times = self._lean.heads // self._lean.kv_heads
        if times > 1:
            keys, values = keys.repeat_interleave(times, dim=1), values.repeat_interleave(times, dim=1)
        a = functional.scaled_dot_product_attention(
            q.transpose(0, 1).unsqueeze(0),
            keys,
            values,
            attn_mask=None if last else prompt.mask,
            is_causal=not last and not prompt.known,
        )
        return a[0].transpose(0, 1).reshape(len(q), -1)

    def step(self, tokens: Tensor) -> Tensor:
        lean = self._lean
        parts, back = self._slabs.parts()
        masks = [part.mask() for part in parts]
        cos, sin = self._cos[self._positions], self._sin[self._positions]
        self._positions += 1
        x = functional.embedding(tokens, lean.model.model.embed_tokens.weight)
        for number, layer in enumerate(self._layers):
            h = self._norm(x, layer.norm)
            k, v = self._keys_values(layer, h, cos, sin)
            q = self._queries(layer, h, cos, sin)
            if back is None:
                a = self._attend(number, parts[0], masks[0], q, k, v)
            else:
                a = torch.cat(
                    [
                        self._attend(number, part, mask, q[part.rows], k[part.rows], v[part.rows])
                        for part, mask in zip(parts, masks, strict=True)
                    ]
                )[back]
            x = self._finish(layer, x, a)
        self._slabs.grow()
        return self._logits(x)

    def _attend(self, number: int, part: Part, mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write new keys and values (slots, heads, width) of a slab's rows and look back: (slots, heads * width)."""
        kv = part.slab.kv[number, :, : part.count]
        if part.level:
            kv[0, :, :, part.seen - 1] = k
            kv[1, :, :, part.seen - 1] = v
        else:
            slots, column = torch.arange(part.count), part.columns.squeeze(1)
            kv[0][slots, :, column] = k
            kv[1][slots, :, column] = v
        keys, values = kv[:, :, :, : part.seen]
        # Query heads that share a key head stand where query positions would: nothing is repeated.
        q = q.view(part.count, self._lean.kv_heads, -1, self._lean.head_dim)
        return functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask).reshape(part.count, -1)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square norm of (tokens, width): the mean as a matrix product is the fastest way on a CPU."""
        if x.dtype != torch.float32:
            return functional.rms_norm(x.float(), weight.shape, eps=self._lean.eps).to(x.dtype).mul_(weight)
        scale = torch.addmm(self._eps, x.square(), self._mean).rsqrt_()
        return (x * scale).mul_(weight)

    def _queries(self, layer: Layer, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q = functional.linear(h, *layer.q).view(len(h), -1, self._lean.head_dim)
        if layer.q_norm is not None:
            q = functional.rms_norm(q, q.shape[-1:], layer.q_norm, self._lean.eps)
        return _rotate(q, cos, sin)

    def _keys_values(self, layer: Layer, h: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        k = functional.linear(h, *layer.k).view(len(h), -1, self._lean.head_dim)
        if layer.k_norm is not None:
            k = functional.rms_norm(k, k.shape[-1:], layer.k_norm, self._lean.eps)
        v = functional.linear(h, *layer.v).view(len(h), -1, self._lean.head_dim)
        return _rotate(k, cos, sin), v

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residual and feed-forward block of (tokens, width) rows, added to `x` in place."""
        _add_linear(x, attended, layer.o)
        h = self._norm(x, layer.mlp_norm)
        gate = functional.silu(functional.linear(h, *layer.gate), inplace=True)
        return _add_linear(x, gate.mul_(functional.linear(h, *layer.up)), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        model = self._lean.model
        h = self._norm(x, model.model.norm.weight)
        return functional.linear(h, model.lm_head.weight, model.lm_head.bias)


def _groups(prompts: Sequence[_Prompt], budget: int) -> Iterator[Sequence[_Prompt]]:
    """Runs of prompts with at most `budget` tokens to compute, or one prompt."""
    first = total = 0
    for row, prompt in enumerate(prompts):
        if row > first and total + prompt.left > budget:
            yield prompts[first:row]
            first, total = row, 0
        total += prompt.left
    yield prompts[first:]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, x.roll(half, -1), sin)


def _add_linear(x: Tensor, h: Tensor, weight: tuple[Tensor, Tensor | None]) -> Tensor:
    """x += h W^T + b, in one pass over x."""
    x.addmm_(h, weight[0].t())
    return x if weight[1] is None else x.add_(weight[1])


def _index(places: list[int]) -> slice | Tensor:
    """Places as an index: of neighbours in order a slice, which needs no copy."""
    if places and places[-1] - places[0] == len(places) - 1 and places == list(range(places[0], places[-1] + 1)):
        return slice(places[0], places[-1] + 1)
    return torch.tensor(places, dtype=torch.long)
