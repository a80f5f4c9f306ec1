"""The forward pass of Llama-shaped models on a CPU, without the overhead that dominates small ones.

Invariant: it computes what transformers computes, from the model's own weight tensors (never copies, so updates show);
`LeanModel.of` proves that on a ragged batch before it is used, and gives None for every model it does not know. Every
tensor names its dtype: transformers changes torch's default for the whole process while another thread loads a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from jade_graph.backbones.forward import HFSession, Session, prefill_groups
from jade_graph.backbones.prefixes import shared_stems
from jade_graph.backbones.sampler import move_rows
from jade_graph.backbones.weights import SMALL_MODEL

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
_KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotary tables that do not depend on the length of the input.
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
# A key-value buffer up to this size is kept for the next batch (bytes).
_KEEP = 256 * 2**20
_TOLERANCE = 1e-4
# A common beginning is computed once where that saves so many tokens.
_WORTH = 48


@dataclass(slots=True)
class _Layer:
    """One decoder layer's weights, by reference."""

    norm: Tensor
    q: tuple[Tensor, Tensor | None]
    k: tuple[Tensor, Tensor | None]
    v: tuple[Tensor, Tensor | None]
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: tuple[Tensor, Tensor | None]
    mlp_norm: Tensor
    gate: tuple[Tensor, Tensor | None]
    up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]


class LeanModel:
    """A model that `LeanSession` can run. Use `of`."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.model = model
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.eps = float(config.rms_norm_eps)
        self.vocabulary = int(model.lm_head.weight.shape[0])
        self._buffer: Tensor | None = None

    @classmethod
    def of(cls, model: Any) -> LeanModel | None:
        """`model`, if it is a small float32 Llama-shaped one on the CPU and agrees with transformers; else None."""
        if not _eligible(model):
            return None
        lean = cls(model)
        return lean if lean._agrees() else None

    def _agrees(self) -> bool:
        """Logits of both ways, after ragged prompts and after one more token, to a relative 1e-4."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        prompts = [[token % vocabulary for token in range(1, 1 + length)] for length in (3, 9, 9, 17)]
        with torch.inference_mode():
            ways: list[Session] = [LeanSession(self, prompts, 2, 20), HFSession(self.model, prompts, 2, 20)]
            tokens = torch.tensor([1, 2, 3, 4]) % vocabulary
            ours, theirs = ([way.prefill(), way.step(tokens)] for way in ways)
        return all(
            bool(b.isfinite().all() and torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * float(b.abs().max())))
            for a, b in zip(ours, theirs, strict=True)
        )

    def layers(self) -> list[_Layer]:
        """The weights as they are now: read at the start of every batch."""
        found = []
        for layer in self.model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
            found.append(
                _Layer(
                    norm=layer.input_layernorm.weight,
                    q=(attention.q_proj.weight, attention.q_proj.bias),
                    k=(attention.k_proj.weight, attention.k_proj.bias),
                    v=(attention.v_proj.weight, attention.v_proj.bias),
                    q_norm=None if q_norm is None else q_norm.weight,
                    k_norm=None if k_norm is None else k_norm.weight,
                    o=(attention.o_proj.weight, attention.o_proj.bias),
                    mlp_norm=layer.post_attention_layernorm.weight,
                    gate=(mlp.gate_proj.weight, mlp.gate_proj.bias),
                    up=(mlp.up_proj.weight, mlp.up_proj.bias),
                    down=(mlp.down_proj.weight, mlp.down_proj.bias),
                )
            )
        return found

    def rotary(self, count: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (count, head_dim): `x * cos + swap(x) * sin`, swap exchanging the halves."""
        rope = self.model.model.rotary_emb
        angles = torch.outer(torch.arange(count, dtype=torch.float32), rope.inv_freq.float())
        cos, sin = angles.cos() * rope.attention_scaling, angles.sin() * rope.attention_scaling
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def buffer(self, shape: tuple[int, ...]) -> Tensor:
        """Room for keys and values, with anything in it; the last batch's where that is large enough."""
        size = torch.Size(shape).numel()
        kept, self._buffer = self._buffer, None
        if kept is None or kept.numel() < size:
            kept = torch.empty(size, dtype=torch.float32)
        if 4 * kept.numel() <= _KEEP:
            self._buffer = kept
        return kept[:size].view(shape)


def _eligible(model: Any) -> bool:
    kind = type(model)
    if kind.__name__ not in _KNOWN or not kind.__module__.startswith("transformers.models."):
        return False
    config = model.config
    parameters = list(model.parameters())
    rope = getattr(model.model.rotary_emb, "rope_type", "")
    return (
        all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)
        and sum(p.numel() for p in parameters) < SMALL_MODEL
        and config.hidden_act == "silu"
        and rope in _FIXED_ROPE
        and not getattr(config, "sliding_window", None)
        and all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
        and _plain(model)
    )


def _plain(model: Any) -> bool:
    """Whether every projection is a stock linear layer.

    One that is wrapped (an adapter, say) shows the weight beneath and agrees with it until it has learned something.
    """
    named = (m for name, m in model.named_modules() if name.rpartition(".")[2] in _PROJECTIONS)
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    return all(type(m) is torch.nn.Linear for m in (*named, *linear))


class LeanSession:
    """A `forward.Session` for a `LeanModel`.

    A row's columns in the key-value buffer are its prompt, a gap up to the longest prompt, and its new tokens; the
    gap is masked. Prompts are padded on the right, where causality alone hides the padding, and the last layer
    computes the last position only.
    """

    def __init__(self, lean: LeanModel, prompts: Sequence[Sequence[int]], new_tokens: int, budget: int) -> None:
        self._lean = lean
        self._layers = lean.layers()
        self._prompts = prompts
        self._lengths = [len(prompt) for prompt in prompts]
        self._budget = budget
        self._column = max(self._lengths)
        rows, columns = len(prompts), self._column + new_tokens
        shape = (len(self._layers), 2, rows, lean.kv_heads, columns, lean.head_dim)
        self._kv = lean.buffer(shape)
        self._cos, self._sin = (table.unsqueeze(1) for table in lean.rotary(columns))
        self._positions = torch.tensor(self._lengths)
        gap = torch.arange(columns) >= self._positions.unsqueeze(1)
        gap[:, self._column :] = False
        self._mask: Tensor | None = None
        if len(set(self._lengths)) > 1:
            empty = torch.zeros(rows, 1, 1, columns, dtype=torch.float32)
            self._mask = empty.masked_fill_(gap[:, None, None, :], float("-inf"))
        width = lean.model.model.embed_tokens.weight.shape[1]
        self._mean = torch.full((width, 1), 1.0 / width, dtype=torch.float32)
        self._eps = torch.tensor([[lean.eps]], dtype=torch.float32)
        self.padded_tokens = 0

    def prefill(self) -> Tensor:
        stems = shared_stems(self._prompts, _WORTH)
        grown = [row for stem in stems for row in stem.rows]
        ends, started = self._lengths, [0] * len(self._lengths)
        for stem in stems:
            started[stem.rows[0]] = stem.length
        # A stem is computed in its first row and copied to the others; then every row goes on where its stem ended.
        self._fill([stem.rows[0] for stem in stems], [0] * len(ends), started, None)
        for stem in stems:
            first, *others = stem.rows
            self._kv[:, :, others, :, : stem.length] = self._kv[:, :, first : first + 1, :, : stem.length]
            for row in others:
                started[row] = stem.length
        logits = torch.empty(len(ends), self._lean.vocabulary, dtype=torch.float32)
        alone = sorted(set(range(len(ends))).difference(grown))
        self._fill(alone, started, ends, logits)
        self._fill(grown, started, ends, logits)
        return logits

    def _fill(self, rows: list[int], starts: list[int], ends: list[int], logits: Tensor | None) -> None:
        """Compute tokens [start, end) of `rows` in groups of like length; write the logits of those that ask."""
        rows = sorted(rows, key=lambda row: ends[row] - starts[row])
        if rows:
            for first, last in prefill_groups([ends[row] - starts[row] for row in rows], self._budget):
                group = rows[first:last]
                self._forward(group, [starts[row] for row in group], [ends[row] for row in group], logits)

    def _forward(self, rows: list[int], starts: list[int], ends: list[int], logits: Tensor | None) -> None:
        lean, count, width = self._lean, len(rows), ends[-1] - starts[-1]
        ids = torch.tensor(
            [
                [*self._prompts[row][start:end], *[0] * (width - end + start)]
                for row, start, end in zip(rows, starts, ends, strict=True)
            ]
        )
        self.padded_tokens += ids.numel()
        index, start, end = torch.tensor(rows), torch.tensor(starts), torch.tensor(ends)
        together = rows == list(range(rows[0], rows[0] + count))
        where: Any = slice(rows[0], rows[0] + count) if together else index
        fresh, seen = not any(starts), max(ends)
        columns = start.unsqueeze(1) + torch.arange(width)
        places = slice(width) if fresh else columns.clamp(max=seen - 1)
        cos, sin = self._cos[places], self._sin[places]
        # Padding lands in the row's gap or among columns of new tokens, which are written again before they are read.
        columns.clamp_(max=self._kv.shape[4] - 1)
        # What is left of a row's gap holds numbers of an earlier batch, whatever they are; 0 times them must be 0.
        for row, stop in zip(rows, ends, strict=True):
            self._kv[:, :, row, :, stop : self._column] = 0
        x = functional.embedding(ids, lean.model.model.embed_tokens.weight).view(count * width, -1)
        for number, layer in enumerate(self._layers):
            h = self._norm(x, layer.norm)
            k, v = self._keys_values(layer, h, cos, sin, count)
            keys, values = self._kv[number, 0], self._kv[number, 1]
            if fresh:
                k, v = k.transpose(1, 2), v.transpose(1, 2)
                keys[where, :, :width] = k
                values[where, :, :width] = v
            else:
                keys[index.unsqueeze(1), :, columns] = k
                values[index.unsqueeze(1), :, columns] = v
                k, v = keys[where, :, :seen], values[where, :, :seen]
            k, v = (_repeat(part, lean.heads // lean.kv_heads) for part in (k, v))
            if number + 1 < len(self._layers):
                q = self._queries(layer, h, cos, sin, count).transpose(1, 2)
                mask = None if fresh else (torch.arange(seen) <= columns.unsqueeze(-1)).unsqueeze(1)
                a = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=fresh)
                a = a.transpose(1, 2).reshape(count * width, -1)
            elif logits is not None:
                final = torch.arange(count) * width + end - start - 1
                x, h = x[final], h[final]
                q = self._queries(layer, h, self._cos[end - 1].unsqueeze(1), self._sin[end - 1].unsqueeze(1), count)
                past = (torch.arange(k.shape[2]) < end.unsqueeze(1))[:, None, None, :]
                a = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=past).view(count, -1)
            else:
                return
            x = self._finish(layer, x, a)
        if logits is not None:
            logits[index] = self._logits(x)

    def step(self, tokens: Tensor) -> Tensor:
        lean, rows, column = self._lean, len(tokens), self._column
        self._column += 1
        cos, sin = self._cos[self._positions].unsqueeze(1), self._sin[self._positions].unsqueeze(1)
        self._positions += 1
        mask = None if self._mask is None else self._mask[..., : column + 1]
        x = functional.embedding(tokens, lean.model.model.embed_tokens.weight)
        for number, layer in enumerate(self._layers):
            h = self._norm(x, layer.norm)
            k, v = self._keys_values(layer, h, cos, sin, rows)
            keys, values = self._kv[number, 0, :rows, :, : column + 1], self._kv[number, 1, :rows, :, : column + 1]
            keys[:, :, column:] = k.transpose(1, 2)
            values[:, :, column:] = v.transpose(1, 2)
            # Query heads that share a key head stand where query positions would: nothing is repeated.
            q = self._queries(layer, h, cos, sin, rows).view(rows, lean.kv_heads, -1, lean.head_dim)
            a = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            x = self._finish(layer, x, a.reshape(rows, -1))
        return self._logits(x)

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        if holes.numel():
            end = self._column
            self._kv[:, :, holes, :, :end] = self._kv[:, :, movers, :, :end]
        self._positions = move_rows(self._positions, holes, movers, count)
        if self._mask is not None:
            self._mask = move_rows(self._mask, holes, movers, count)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square norm of (tokens, width): the mean as a matrix product is the fastest way on a CPU."""
        scale = torch.addmm(self._eps, x.square(), self._mean).rsqrt_()
        return (x * scale).mul_(weight)

    def _queries(self, layer: _Layer, h: Tensor, cos: Tensor, sin: Tensor, rows: int) -> Tensor:
        q = functional.linear(h, *layer.q).view(rows, -1, self._lean.heads, self._lean.head_dim)
        if layer.q_norm is not None:
            q = functional.rms_norm(q, q.shape[-1:], layer.q_norm, self._lean.eps)
        return _rotate(q, cos, sin)

    def _keys_values(self, layer: _Layer, h: Tensor, cos: Tensor, sin: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        k = functional.linear(h, *layer.k).view(rows, -1, self._lean.kv_heads, self._lean.head_dim)
        if layer.k_norm is not None:
            k = functional.rms_norm(k, k.shape[-1:], layer.k_norm, self._lean.eps)
        v = functional.linear(h, *layer.v).view(rows, -1, self._lean.kv_heads, self._lean.head_dim)
        return _rotate(k, cos, sin), v

    def _finish(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residual and feed-forward block of (tokens, width) rows, added to `x` in place."""
        _add_linear(x, attended, layer.o)
        h = self._norm(x, layer.mlp_norm)
        gate = functional.silu(functional.linear(h, *layer.gate), inplace=True)
        return _add_linear(x, gate.mul_(functional.linear(h, *layer.up)), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        model = self._lean.model
        h = self._norm(x, model.model.norm.weight)
        return functional.linear(h, model.lm_head.weight, model.lm_head.bias)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, x.roll(half, -1), sin)


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _add_linear(x: Tensor, h: Tensor, weight: tuple[Tensor, Tensor | None]) -> Tensor:
    """x += h W^T + b, in one pass over x."""
    x.addmm_(h, weight[0].t())
    return x if weight[1] is None else x.add_(weight[1])
