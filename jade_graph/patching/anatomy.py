"""Where the sites of a transformers decoder are: its blocks, and in each the attention, what mixes its heads, the MLP.

Invariant: modules are found by what they are called in stock transformers and are only read; a block that lacks a part
(a convolution instead of attention) has None there, and a model without blocks is an error that says what was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from jade_graph.errors import UsageError

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "fc2")
_MIX = ("o_proj", "out_proj", "c_proj", "dense", "wo", "out_lin")


@dataclass(frozen=True, slots=True)
class Block:
    """One layer. `mix` is the projection whose input holds the heads' outputs side by side; `heads` how many."""

    module: nn.Module
    attention: nn.Module | None
    mlp: nn.Module | None
    mix: nn.Module | None
    heads: int


def blocks_of(model: Any) -> tuple[Block, ...]:
    """The layers of a causal language model, the first one first. Raises `UsageError` LOOK_ARCHITECTURE."""
    known = getattr(model, "config", None)
    config = known.get_text_config() if known is not None else None
    count = int(getattr(config, "num_hidden_layers", 0))
    root = model.get_decoder() if hasattr(model, "get_decoder") else model
    lists = [m for part in (root, model) if part is not None for m in part.modules() if isinstance(m, nn.ModuleList)]
    found = next((m for m in lists if len(m) == count and count), None)
    if found is None:
        raise UsageError(
            f"no list of {count} layers is in {type(model).__name__}: there is nothing to look into.",
            code="LOOK_ARCHITECTURE",
            known=sorted({type(m).__name__ for m in lists}),
            hint="a decoder of stock transformers",
        )
    return tuple(_block(layer, config) for layer in found)


def _block(layer: nn.Module, config: Any) -> Block:
    attention = _child(layer, _ATTENTION)
    mix = None if attention is None else _child(attention, _MIX) or _deep(attention, _MIX)
    own = [getattr(attention, name, None) for name in ("num_heads", "num_attention_heads", "n_heads")]
    heads = next((n for n in own if isinstance(n, int)), 0) or int(getattr(config, "num_attention_heads", 0) or 0)
    return Block(layer, attention, _child(layer, _MLP), mix if heads else None, heads)


def _child(module: nn.Module, names: Iterable[str]) -> nn.Module | None:
    known = dict(module.named_children())
    return next((known[name] for name in names if name in known), None)


def _deep(module: nn.Module, names: Iterable[str]) -> nn.Module | None:
    """Of a part that wraps the real one."""
    inner = {name.rpartition(".")[2]: found for name, found in module.named_modules() if name}
    return next((inner[name] for name in names if name in inner), None)
