"""The forward pass of Llama-shaped models on a CPU, without the overhead that dominates small ones.

Invariant: it computes what transformers computes, from the model's own weight tensors (never copies, so updates show);
`LeanModel.of` proves that on a ragged batch before it is used, and gives None for every model it does not know. Every
tensor names its dtype: transformers changes torch's default for the whole process while another thread loads a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jade_graph.backbones.forward import HFSession, Session
from jade_graph.backbones.prefix_cache import PrefixCache
from jade_graph.backbones.slabs import Slabs
from jade_graph.backbones.weights import SMALL_MODEL

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
_KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotary tables that do not depend on the length of the input.
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
# Room for keys and values up to this size is kept for the next batch: of small models, and of others (MB).
_KEPT_MB = (256, 1024)
# Default sizes of the memory for beginnings of prompts, which grows as it is used: of small models, and of others (MB).
_PREFIXES_MB = (64, 512)
# Of the largest logit, what ours may differ by. In bfloat16 both round after each step, but not after the same ones.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.04}


@dataclass(slots=True)
class Layer:
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

    def __init__(self, model: Any, constant: bool = False, prefix_cache_mb: int | None = None) -> None:
        config = model.config
        self.model = model
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.eps = float(config.rms_norm_eps)
        self.vocabulary = int(model.lm_head.weight.shape[0])
        self.dtype = model.lm_head.weight.dtype
        self._constant = constant
        large = sum(p.numel() for p in model.parameters()) >= SMALL_MODEL
        if prefix_cache_mb is None:
            prefix_cache_mb = _PREFIXES_MB[large]
        self._most = _KEPT_MB[large] * 2**20
        self._bytes = prefix_cache_mb * 2**20
        self._slabs: Slabs | None = None
        self._cache: PrefixCache | None = None
        self._stamped: list[float] = []

    @classmethod
    def of(cls, model: Any, *, constant: bool = False, prefix_cache_mb: int | None = None) -> LeanModel | None:
        """`model`, if it is a Llama-shaped one on the CPU and agrees with transformers; else None.

        Args:
            model: float32 or bfloat16.
            constant: nobody changes the weights, so that keys and values of one batch are true in the next. Where they
                are changed in place all the same, it is noticed at the next batch.
            prefix_cache_mb: most memory for these; None: 64, of models from 100 million parameters on 512.
        """
        if not eligible(model):
            return None
        lean = cls(model, constant, prefix_cache_mb)
        return lean if lean._agrees() else None

    def _agrees(self) -> bool:
        """Logits of both ways, after ragged prompts and after one more token, to a relative 1e-4."""
        from jade_graph.backbones.lean_session import LeanSession

        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        prompts = [[token % vocabulary for token in range(1, 1 + length)] for length in (3, 9, 9, 17)]
        with torch.inference_mode():
            ways: list[Session] = [LeanSession(self, 20), HFSession(self.model, 20)]
            tokens = torch.tensor([1, 2, 3, 4]) % vocabulary
            ours, theirs = ([way.admit(prompts, [2] * 4), way.step(tokens)] for way in ways)
        near = _TOLERANCE[self.dtype]
        return all(
            bool(b.isfinite().all() and torch.allclose(a, b, rtol=near, atol=near * float(b.abs().max())))
            for a, b in zip(ours, theirs, strict=True)
        )

    def layers(self) -> list[Layer]:
        """The weights as they are now: read at the start of every batch."""
        found = []
        for layer in self.model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
            found.append(
                Layer(
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

    def take_slabs(self) -> Slabs:
        """Room for keys and values, with nobody in it; the last batch's, where that was given back."""
        kept, self._slabs = self._slabs, None
        if kept is None:
            return Slabs(len(self.model.model.layers), self.kv_heads, self.head_dim, self.dtype)
        kept.clear()
        return kept

    def take_cache(self) -> PrefixCache:
        """What is known of prompts; of a model whose weights may have changed, nothing."""
        kept, self._cache = self._cache, None
        before, self._stamped = self._stamped, self._stamp() if self._constant else []
        if kept is None:
            layers, element = len(self.model.model.layers), self.dtype.itemsize
            capacity = self._bytes // (2 * layers * self.kv_heads * self.head_dim * element)
            return PrefixCache(layers, self.kv_heads, self.head_dim, capacity, self.dtype)
        if not self._constant or self._stamped != before:
            kept.clear()
        return kept

    def _stamp(self) -> list[float]:
        """A number of every tensor, which learning changes. Version counters do not: fused optimisers pass them by."""
        with torch.inference_mode():
            numbers: list[float] = torch.stack(
                [p.reshape(-1)[p.numel() // 2] for p in self.model.parameters()]
            ).tolist()
        return numbers

    def keep(self, slabs: Slabs, cache: PrefixCache) -> None:
        """Give back what a batch took, in which every number is finite."""
        if slabs.nbytes <= self._most:
            self._slabs = slabs
        self._cache = cache


def eligible(model: Any, *, adapted: bool = False) -> bool:
    """Whether a model has the shape that is computed here.

    Args:
        adapted: its projections may be wrapped: the caller knows what stands beside them.
    """
    kind = type(model)
    if kind.__name__ not in _KNOWN or not kind.__module__.startswith("transformers.models."):
        return False
    config = model.config
    parameters = list(model.parameters())
    rope = getattr(model.model.rotary_emb, "rope_type", "")
    return (
        len({p.dtype for p in parameters}) == 1
        and all(p.dtype in _TOLERANCE and p.device.type == "cpu" for p in parameters)
        and config.hidden_act == "silu"
        and rope in _FIXED_ROPE
        and not getattr(config, "sliding_window", None)
        and all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
        and (adapted or _plain(model))
    )


def _plain(model: Any) -> bool:
    """Whether every projection is a stock linear layer.

    One that is wrapped (an adapter, say) shows the weight beneath and agrees with it until it has learned something.
    """
    named = (m for name, m in model.named_modules() if name.rpartition(".")[2] in _PROJECTIONS)
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    return all(type(m) is torch.nn.Linear for m in (*named, *linear))
