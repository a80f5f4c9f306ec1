"""The architecture of jade-tiny and its starting values.

Invariant: a stock `LlamaForCausalLM`, so that it loads anywhere without remote code; only the numbers that it starts
from are chosen here, such that attention looks for equal tokens and copies what it finds from the first step on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def build_model(
    tokenizer: Any, *, seed: int = 0, width: int = 128, layers: int = 4, heads: int = 4, context: int = 512
) -> LlamaForCausalLM:
    """A new model in float32 with eager attention.

    Linear weights have std 1/sqrt(fan_in); inputs have unit scale, and the final norm scales them back for the tied
    head; W_k = W_q makes a token attend to its equals, W_o = W_v^T / sqrt(layers) hands on what it attends to.
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
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
                module.weight.normal_(0.0, 1 / math.sqrt(module.in_features), generator=generator)
        model.model.embed_tokens.weight.normal_(0.0, 1.0, generator=generator)
        model.model.norm.weight.fill_(1 / math.sqrt(width))
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T / math.sqrt(layers))
    return model
