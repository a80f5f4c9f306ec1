"""A circuit compiled by hand into a stock Llama of two layers and four heads: what its sites do is known exactly.

Norms are made linear by a huge epsilon, rotations vanish but in one pair of dimensions that no head uses.
L0H0 copies the query token to the last position, L1H2 compares the copy with the document tokens (the separator is
where it rests) and writes "yes". The other heads move things about that nobody reads. With `uses=2`, L0H1 copies the
query too and L1H3 takes 1 off what L1H2, then twice as strong, writes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = 6
SEP, ANS, YES, NO = 2 * WORDS, 2 * WORDS + 1, 2 * WORDS + 2, 2 * WORDS + 3
VOCABULARY, WIDTH, HEAD, HEADS = 2 * WORDS + 4, 64, 16, 4
QUERY_ID, DOC_ID, COPY, COPY_2, IS_QUERY, IS_SEP, IS_ANS, YES_AT, NOISE = 0, 6, 12, 18, 24, 25, 26, 27, 32
SHARP = 400.0


def query(i: int) -> int:
    return i


def document(i: int) -> int:
    return WORDS + i


def circuit(uses: int = 1, **more: Any) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, head_dim=HEAD, rms_norm_eps=1e10, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e38}, attention_bias=False, **more,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.zero_()
    for norm in (
        model.model.norm,
        *(n for b in model.model.layers for n in (b.input_layernorm, b.post_attention_layernorm)),
    ):
        norm.weight.fill_(1e5)
    embedding = model.model.embed_tokens.weight
    for i in range(WORDS):
        embedding[query(i), QUERY_ID + i] = embedding[query(i), IS_QUERY] = 1
        embedding[document(i), DOC_ID + i] = 1
    embedding[SEP, IS_SEP] = embedding[ANS, IS_ANS] = 1
    model.lm_head.weight[YES, YES_AT] = 3
    first, second = model.model.layers

    def wire(
        block: Any, head: int, q: dict[int, int], k: dict[int, int], v: dict[int, int], o: dict[int, int], by: float
    ) -> None:
        """Residual dimension to the head's own (from 1: the pair of 0 and HEAD / 2 rotates), and back."""
        attention, at = block.self_attn, head * HEAD
        for wide, own in q.items():
            attention.q_proj.weight[at + own, wide] = SHARP
        for wide, own in k.items():
            attention.k_proj.weight[at + own, wide] = 2.0 if wide == IS_SEP else 4.0
        for wide, own in v.items():
            attention.v_proj.weight[at + own, wide] = 1
        for own, wide in o.items():
            attention.o_proj.weight[wide, at + own] = by

    def copy(head: int, to: int) -> None:
        here = {QUERY_ID + i: 1 + i for i in range(WORDS)}
        wire(first, head, {IS_ANS: 1}, {IS_QUERY: 1}, here, {1 + i: to + i for i in range(WORDS)}, 1.0)

    def match(head: int, of: int, by: float) -> None:
        asked = {of + i: 1 + i for i in range(WORDS)} | {IS_ANS: 7}
        keys = {DOC_ID + i: 1 + i for i in range(WORDS)} | {IS_SEP: 7}
        wire(second, head, asked, keys, {DOC_ID + i: 1 for i in range(WORDS)}, {1: YES_AT}, by)

    def distract(block: Any, head: int) -> None:
        """An even mean of all tokens so far, into dimensions that nobody reads."""
        everything = {i: 1 + i for i in range(WORDS)} | {DOC_ID + i: 9 + i for i in range(WORDS)}
        wire(block, head, {}, {}, everything, {own: NOISE + own for own in range(1, HEAD)}, 1.0)

    copy(0, COPY)
    match(2, COPY, float(uses))
    if uses == 2:
        copy(1, COPY_2)
        match(3, COPY_2, -1.0)
    for head in range(4):
        if not (head == 0 or (uses == 2 and head == 1)):
            distract(first, head)
        if not (head == 2 or (uses == 2 and head == 3)):
            distract(second, head)
    return model


@pytest.fixture(scope="session")
def planted() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return circuit()


@pytest.fixture(scope="session")
def twice() -> LlamaForCausalLM:
    return circuit(uses=2)
