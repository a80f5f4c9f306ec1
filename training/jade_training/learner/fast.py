"""The forward pass of Llama-shaped models for learning, without what costs small ones most.

Invariant: it computes what transformers computes, from the model's own weights, with gradients; `FastTrunk.of` gives
None for every model that it does not know, and `logits.Reader` compares it with the model before it is used.

What is saved against the stock pass: the last layer works at the action positions only, what rows begin with in common
is read once, weights beside which adapters learn get no gradient, projections of a small model that read the same input
are one matrix product, attention of a small model is two matrix products with a softmax between (over short rows the
backward of the fused kernel is slower), and norm, rotation and gate have their gradients written out: elementwise
passes over memory cost more than the products there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jade_graph.backbones.lean import LeanModel, eligible
from jade_training.learner.adapters import Adapter, adapter_of, adapters_are_known

if TYPE_CHECKING:
    from jade_training.learner.logits import Branched, Packed
    from jade_training.learner.trees import Trees

# Up to this width one product of several projections is worth laying their weights side by side.
_NARROW = 256


class Part(NamedTuple):
    """A projection, and the adapter beside it."""

    weight: Tensor
    bias: Tensor | None
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights, by reference."""

    norm: Tensor
    q: Part
    k: Part
    v: Part
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Part
    mlp_norm: Tensor
    gate: Part
    up: Part
    down: Part


class FastTrunk:
    """Runs a `LeanModel`'s weights with gradients. Use `of`."""

    def __init__(self, lean: LeanModel, bf16: bool) -> None:
        self._lean = lean
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        self._narrow = int(lean.model.config.hidden_size) <= _NARROW

    @classmethod
    def of(cls, model: Any, *, bf16: bool = False) -> FastTrunk | None:
        """`model`, if it is a float32 Llama-shaped one on the CPU, with LoRA adapters in its layers or without; else
        None.
        """
        if adapters_are_known(model):
            lean = LeanModel(model) if eligible(model, adapted=True) else None
        else:
            lean = LeanModel.of(model)
        return None if lean is None or lean.dtype != torch.float32 else cls(lean, bf16)

    def _layers(self) -> list[Layer]:
        found = []
        for layer, module in zip(self._lean.layers(), self._lean.model.model.layers, strict=True):
            attention, mlp = module.self_attn, module.mlp
            found.append(
                Layer(
                    norm=layer.norm,
                    q=Part(*layer.q, adapter_of(attention.q_proj)),
                    k=Part(*layer.k, adapter_of(attention.k_proj)),
                    v=Part(*layer.v, adapter_of(attention.v_proj)),
                    q_norm=layer.q_norm,
                    k_norm=layer.k_norm,
                    o=Part(*layer.o, adapter_of(attention.o_proj)),
                    mlp_norm=layer.mlp_norm,
                    gate=Part(*layer.gate, adapter_of(mlp.gate_proj)),
                    up=Part(*layer.up, adapter_of(mlp.up_proj)),
                    down=Part(*layer.down, adapter_of(mlp.down_proj)),
                )
            )
        return found

    def __call__(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Final hidden states (N, width) before each action token, and at the last prompt token of each row (R, width).

        The latter are among the former: what predicts an action's first token.
        """
        length, first = packed.ids.shape[1], packed.last
        # A shorter action's spare places ask again.
        asked = first[:, None] + torch.minimum(torch.arange(int(packed.lengths.max())), packed.lengths[:, None] - 1)
        within = packed.columns - 1 - first[packed.rows]
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        x = self._states(packed.ids, torch.arange(length), seen, asked)[packed.rows, within]
        starts = torch.cumsum(packed.lengths, 0) - packed.lengths
        x = self._last_norm(x)
        return x, x[starts]

    def branches(self, branched: Branched) -> Tensor:
        """Final hidden states (N, width) before each token of actions that share a prompt, which is read once."""
        own = branched.own[:, :, None] == branched.own[:, None]
        length = branched.ids.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril() & (own | (branched.own == 0)[:, None])
        x = self._states(branched.ids, branched.positions, seen, branched.asked)
        return self._last_norm(x[branched.rows, branched.within])

    def trees(self, trees: Trees) -> Tensor:
        """Final hidden states (N, width) before each action token of rows that are laid out as trees."""
        x = self._states(trees.ids, trees.positions, trees.seen, trees.asked)
        return self._last_norm(x[trees.rows, trees.within])

    def _states(self, ids: Tensor, positions: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        """States (R, A, width) before the last norm, at the columns `asked` (R, A) of `ids` (R, L).

        Args:
            positions: of each column, (L,) or (R, L). seen: what a column looks at, (L, L) or (R, L, L).
        """
        lean, layers = self._lean, self._layers()
        count, length = ids.shape
        cos, sin = (table[:, None].to(self._dtype)[positions] for table in lean.rotary(length))
        x = lean.model.model.embed_tokens(ids)
        past = torch.zeros(seen.shape, dtype=self._dtype).masked_fill_(~seen, float("-inf"))
        heads = self._by_head(past)
        for layer in layers[:-1]:
            h = self._norm(x, layer.norm)
            q, k, v = self._linear(h, layer.q, layer.k, layer.v)
            a = self._attend(layer, q, k, v, (cos, sin), (cos, sin), heads)
            x = self._finish(layer, x, a)
        # In the last layer only what predicts an action token asks.
        layer, rows = layers[-1], torch.arange(count)[:, None]
        h = self._norm(x, layer.norm)
        k, v = self._linear(h, layer.k, layer.v)
        [q] = self._linear(h[rows, asked], layer.q)
        at = (cos[asked], sin[asked]) if positions.ndim == 1 else (cos[rows, asked], sin[rows, asked])
        past = past[asked] if past.ndim == 2 else past[rows, asked]
        a = self._attend(layer, q, k, v, at, (cos, sin), self._by_head(past))
        return self._finish(layer, x[rows, asked], a)

    def _by_head(self, past: Tensor) -> Tensor:
        """What is added to the scores, (L, L) or (R, A, L), as `_attend` takes it."""
        if not self._narrow:
            return past[:, None] if past.ndim == 3 else past
        return past.repeat_interleave(self._lean.heads, 0) if past.ndim == 3 else past

    def _last_norm(self, x: Tensor) -> Tensor:
        return _norm(x, self._lean.model.model.norm.weight, self._lean.eps, torch.float32)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _norm(x, weight, self._lean.eps, self._dtype)

    def _linear(self, h: Tensor, *parts: Part) -> tuple[Tensor, ...]:
        """What each of several projections makes of one input."""
        if not self._narrow or any(part.adapter is not None for part in parts):
            return self._apart(h, *parts)
        parted: tuple[Tensor, ...] = torch.split(self._whole(h, *parts), [len(part.weight) for part in parts], dim=-1)
        return parted

    def _whole(self, h: Tensor, *parts: Part) -> Tensor:
        """The same side by side: of a small model in one product."""
        if any(part.adapter is not None for part in parts):
            return torch.cat(self._apart(h, *parts), -1)
        weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight
        bias = None
        if any(part.bias is not None for part in parts):
            biases = [torch.zeros(len(w)) if b is None else b for w, b, _ in parts]
            bias = torch.cat(biases).to(self._dtype)
        return functional.linear(h, weight.to(self._dtype), bias)

    def _apart(self, h: Tensor, *parts: Part) -> tuple[Tensor, ...]:
        """Each in a product of its own: h W^T + b + s (h A^T) B^T. What an input is lowered to is one product."""
        found = [
            functional.linear(h, part.weight.to(self._dtype), None if part.bias is None else part.bias.to(self._dtype))
            for part in parts
        ]
        adapted = [(i, part.adapter) for i, part in enumerate(parts) if part.adapter is not None]
        if adapted:
            low = functional.linear(h, torch.cat([adapter.a for _, adapter in adapted]).to(self._dtype))
            lows = torch.split(low, [len(adapter.a) for _, adapter in adapted], dim=-1)
            for (i, adapter), low in zip(adapted, lows, strict=True):
                plain, up = found[i].flatten(0, -2), adapter.b.to(self._dtype).t()
                found[i] = torch.addmm(plain, low.flatten(0, -2), up, alpha=adapter.scale).view_as(found[i])
        return tuple(found)

    def _attend(
        self,
        layer: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        at_q: tuple[Tensor, Tensor],
        at_k: tuple[Tensor, Tensor],
        past: Tensor,
    ) -> Tensor:
        lean, size = self._lean, self._lean.head_dim
        q, k, v = (part.reshape(*part.shape[:-1], -1, size) for part in (q, k, v))
        if layer.q_norm is not None:
            q = functional.rms_norm(q.float(), (size,), layer.q_norm, lean.eps).to(self._dtype)
            k = functional.rms_norm(k.float(), (size,), layer.k_norm, lean.eps).to(self._dtype)
        q, k = _rotate(q, *at_q), _rotate(k, *at_k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        groups = lean.heads // lean.kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        if not self._narrow:  # long rows: the scores of all heads at once do not fit into the caches
            read = functional.scaled_dot_product_attention(q, k, v, attn_mask=past)
            return read.transpose(1, 2).flatten(2)
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        past = past.expand(len(q), *past.shape[-2:])
        scores = torch.baddbmm(past, q, k.transpose(1, 2), alpha=1 / math.sqrt(size))
        read = torch.softmax(scores, -1) @ v
        return read.view(-1, lean.heads, *read.shape[1:]).transpose(1, 2).flatten(2)

    def _finish(self, layer: Any, x: Tensor, attended: Tensor) -> Tensor:
        [o] = self._linear(attended, layer.o)
        x = x + o
        h = self._norm(x, layer.mlp_norm)
        if self._narrow:
            gated = _gate(self._whole(h, layer.gate, layer.up))
        else:
            gated = _gate_apart(*self._apart(h, layer.gate, layer.up))
        [down] = self._linear(gated, layer.down)
        return x + down


class _Norm(torch.autograd.Function):
    """Root-mean-square norm y = x r w, r = (mean x^2 + eps)^(-1/2), in float32, given out as `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = (norm.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight, r)
        normed: Tensor = (x * r).mul_(weight).to(dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """dx = r w g - x r^3 (w . g x) / n;  dw = sum r g x."""
        x, weight, r = ctx.saved_tensors
        g = grads[0].float()
        product = (g * x).view(-1, x.shape[-1])
        along = (product @ weight).view(r.shape)
        dw = product.t() @ r.view(-1) if ctx.needs_input_grad[1] else None
        dx = (g * r).mul_(weight).addcmul_(x, r.pow(3) * along, value=-1 / x.shape[-1])
        return dx, dw, None, None


class _Rotate(torch.autograd.Function):
    """Rotary embedding of x (.., heads, size); `cos`, `sin` (.., 1, size) as `LeanModel.rotary` gives them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, x.roll(half, -1), sin)


class _Gate(torch.autograd.Function):
    """silu(gate) * up of the two side by side (.., 2 n)."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        [both] = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        size = gate.shape[-1]
        torch.mul(grads[0], functional.silu(gate), out=out[..., size:])
        out[..., :size] = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return out


class _GateApart(torch.autograd.Function):
    """The same of two tensors, which need not be laid side by side."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grads[0] * up, gate), functional.silu(gate).mul_(grads[0])


_norm: Callable[..., Tensor] = _Norm.apply
_rotate: Callable[..., Tensor] = _Rotate.apply
_gate: Callable[..., Tensor] = _Gate.apply
_gate_apart: Callable[..., Tensor] = _GateApart.apply
