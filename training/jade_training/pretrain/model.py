"""The architecture of jade-tiny and its starting values.

Invariant: a stock `LlamaForCausalLM`, so that it loads anywhere without remote code; only the numbers that it starts
from are chosen here, such that it knows from the first step which words belong together, looks for equal tokens, and
copies what follows them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jade_training.pretrain.words import features, name_ids

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

ROPE_BASE = 1e6
"""Large, so that most of a head's dimensions hardly turn within a prompt: content is matched at any distance."""
CONSTANT = 4.0
"""The value of the first embedding dimension, the same for every token: what a position-only head can hold on to."""
TOGETHER, NAMES_TOGETHER = 0.5, 0.2
"""The share of an embedding's variance that words of the same list or relation have in common; less for pieces of
names, which are told apart more often than they are taken together."""
SHARPNESS = 1.5
"""Weight of the constant in the head that attends to the token before: larger attends more sharply."""
WRITE, MATCH, COPY = 2.0, 2.0, 6.0
"""How loud that head writes, how sharply the copying head matches it, how loud that one speaks."""
TURNING = 5
"""The first pairs of dimensions of a head turn too fast to match content; the copying head leaves them out."""


def build_model(
    tokenizer: Any,
    *,
    seed: int = 0,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    head_size: int = 64,
    context: int = 512,
) -> LlamaForCausalLM:
    """A new model in float32.

    Linear weights have std 1/sqrt(fan_in); inputs have unit scale, and the final norm scales them back for the tied
    head; W_k = W_q makes a token attend to its equals, W_o = W_v^T / sqrt(layers) hands on what it attends to. One head
    of the first layer starts as "the token before" and one of the second as "what followed the last time"
    (an induction head): left to chance, they take thousands of steps to form.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=head_size,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("sdpa")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
                module.weight.normal_(0.0, 1 / math.sqrt(module.in_features), generator=generator)
        model.model.embed_tokens.weight.copy_(_embeddings(tokenizer, width, generator))
        model.model.norm.weight.fill_(1 / math.sqrt(width))
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T / math.sqrt(layers))
        if layers > 1:
            _start_induction(model, generator)
    return model


def hold_constant(model: Any) -> None:
    """Keep training from moving the constant dimension of the embeddings."""
    import torch

    def without(gradient: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(gradient[:, :1]), gradient[:, 1:]], 1)

    model.model.embed_tokens.weight.register_hook(without)


def _embeddings(tokenizer: Any, width: int, generator: Any) -> Any:
    """(vocabulary, width): random and of unit scale, in part shared with the words that belong together."""
    import torch

    own = torch.randn(len(tokenizer), width, generator=generator)
    known = features(tokenizer)
    shared = known @ torch.randn(known.shape[1], width, generator=generator)
    share = torch.full((len(tokenizer), 1), TOGETHER)
    share[name_ids(tokenizer)] = NAMES_TOGETHER
    mixed = (1 - share).sqrt() * own + share.sqrt() * shared
    found = torch.where(known.any(1, keepdim=True), mixed, own)
    found[:, 0] = CONSTANT
    return found


def _start_induction(model: Any, generator: Any) -> None:
    """Set the first head of layers 0 and 1.

    Layer 0 attends one position back: with q constant and k the same vector turned by one position, RoPE makes the
    score largest at distance 1. It writes a projection of that token through `write`; layer 1 reads with the same
    projection as q and the transpose of `write` as k, so it finds the tokens that stood behind an equal one.
    """
    import torch

    config = model.config
    width, size = config.hidden_size, config.head_dim
    before, copying = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    turn = 1.0 / ROPE_BASE ** (torch.arange(0, size, 2) / size)
    here, there = torch.zeros(size, width), torch.zeros(size, width)
    here[: size // 2, 0] = SHARPNESS
    there[:, 0] = SHARPNESS * torch.cat([turn.cos(), turn.sin()])
    still = (torch.arange(size) % (size // 2) >= TURNING).float()[:, None]
    read = torch.randn(size, width, generator=generator) / math.sqrt(width)
    read[:, 0] = 0.0
    write = torch.zeros(width, size)
    write[1:] = torch.linalg.qr(torch.randn(width - 1, size, generator=generator))[0]
    before.q_proj.weight[:size], before.k_proj.weight[:size] = here, there
    before.v_proj.weight[:size], before.o_proj.weight[:, :size] = read, WRITE * write
    copying.q_proj.weight[:size] = MATCH * read * still
    copying.k_proj.weight[:size] = MATCH * write.T * still
    copying.o_proj.weight[:, :size] *= COPY
