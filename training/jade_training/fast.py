"""The forward pass of Llama-shaped models for learning, without what costs small ones most.

Invariant: it computes what transformers computes, from the model's own weights, with gradients; `FastTrunk.of` gives
None for every model that it does not know, and `forward.Reader` compares it with the model before it is used.

What is saved against the stock pass: the last layer works at the action positions only, projections that read the same
input are one matrix product, attention is two matrix products with a softmax between (on a CPU the backward of the
fused kernel is slower), and norm, rotation and gate have their gradients written out: elementwise passes over memory
cost more than the products here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from jade_graph.backbones.lean import LeanModel

if TYPE_CHECKING:
    from jade_training.forward import Packed

Linear = tuple[Tensor, Tensor | None]


class FastTrunk:
    """Runs a `LeanModel`'s weights with gradients. Use `of`."""

    def __init__(self, lean: LeanModel, bf16: bool) -> None:
        self._lean = lean
        self._dtype = torch.bfloat16 if bf16 else torch.float32

    @classmethod
    def of(cls, model: Any, *, bf16: bool = False) -> FastTrunk | None:
        """`model`, if it is a small float32 Llama-shaped one on the CPU; else None."""
        lean = LeanModel.of(model)
        return None if lean is None else cls(lean, bf16)

    def __call__(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Final hidden states (N, width) before each action token, and at the last prompt token of each row (R, width).

        The latter are among the former: what predicts an action's first token.
        """
        lean, layers = self._lean, self._lean.layers()
        count, length = packed.ids.shape
        cos, sin = (table[:, None].to(self._dtype) for table in lean.rotary(length))
        x = lean.model.model.embed_tokens(packed.ids)
        past = torch.full((length, length), float("-inf"), dtype=self._dtype).triu(1)
        for layer in layers[:-1]:
            h = self._norm(x, layer.norm)
            q, k, v = self._linear(h, layer.q, layer.k, layer.v)
            a = self._attend(layer, q, k, v, (cos, sin), (cos, sin), past)
            x = self._finish(layer, x, a)
        layer, first = layers[-1], packed.last
        # In the last layer only what predicts an action token asks; a shorter action's spare places ask again.
        longest = int(packed.lengths.max())
        asked = first[:, None] + torch.minimum(torch.arange(longest), packed.lengths[:, None] - 1)
        h = self._norm(x, layer.norm)
        k, v = self._linear(h, layer.k, layer.v)
        rows = torch.arange(count)[:, None]
        [q] = self._linear(h[rows, asked], layer.q)
        past = torch.zeros(count, longest, length, dtype=self._dtype)
        past.masked_fill_(torch.arange(length) > asked[:, :, None], float("-inf"))
        past = past.repeat_interleave(lean.heads, 0)
        a = self._attend(layer, q, k, v, (cos[asked], sin[asked]), (cos, sin), past)
        within = packed.columns - 1 - first[packed.rows]
        x = self._finish(layer, x[packed.rows, packed.columns - 1], a[packed.rows, within])
        x = _norm(x, lean.model.model.norm.weight, lean.eps, torch.float32)
        starts = torch.cumsum(packed.lengths, 0) - packed.lengths
        return x, x[starts]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _norm(x, weight, self._lean.eps, self._dtype)

    def _linear(self, h: Tensor, *parts: Linear) -> tuple[Tensor, ...]:
        """What each of several layers makes of one input."""
        parted: tuple[Tensor, ...] = torch.split(self._whole(h, *parts), [len(w) for w, _ in parts], dim=-1)
        return parted

    def _whole(self, h: Tensor, *parts: Linear) -> Tensor:
        """The same in one product, side by side."""
        weight = torch.cat([w for w, _ in parts]) if len(parts) > 1 else parts[0][0]
        biases = [b for _, b in parts]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([torch.zeros(len(w)) if b is None else b for w, b in parts]).to(self._dtype)
        return functional.linear(h, weight.to(self._dtype), bias)

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
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        past = past.expand(len(q), *past.shape[-2:])
        scores = torch.baddbmm(past, q, k.transpose(1, 2), alpha=1 / math.sqrt(size))
        read = torch.softmax(scores, -1) @ v
        return read.view(-1, lean.heads, *read.shape[1:]).transpose(1, 2).flatten(2)

    def _finish(self, layer: Any, x: Tensor, attended: Tensor) -> Tensor:
        [o] = self._linear(attended, layer.o)
        x = x + o
        both = self._whole(self._norm(x, layer.mlp_norm), layer.gate, layer.up)
        [down] = self._linear(_gate(both), layer.down)
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
        dw = product.t() @ r.view(-1)
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


_norm: Callable[..., Tensor] = _Norm.apply
_rotate: Callable[..., Tensor] = _Rotate.apply
_gate: Callable[..., Tensor] = _Gate.apply
