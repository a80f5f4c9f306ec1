"""Models whose batches do not compute what they compute are found, and decoded row by row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.fidelity import KNOWN, PlainSession, ability, measured
from jade_graph.backbones.forward import HFSession
from jade_graph.backbones.hf import HFBackbone
from jade_graph.testing.models import make_tokenizer
from jade_graph.types import Sampling

SHAPE = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def build(kind: str, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    make: Any = AutoModelForCausalLM
    model: Any = make.from_config(AutoConfig.for_model(kind, **{**SHAPE, **more}))
    return model.eval().requires_grad_(False)


def recurrent() -> Any:
    return build("recurrent_gemma", lru_width=32, num_hidden_layers=3, attention_window_size=16)


def test_recurrent_models_are_decoded_row_by_row_and_right() -> None:
    model = recurrent()
    assert ability(model) == "rows"
    backbone = HFBackbone.from_model(model, Codec(make_tokenizer(chat=False), [1]), version="recurrent@0")
    prompts = [[(7 * row + 3 * at + 2) % 320 for at in range(length)] for row, length in enumerate((4, 19, 7, 26, 12))]

    async def ask() -> list[Any]:
        requests = [backbone.generate(p, Sampling(max_new_tokens=4, seed=i)) for i, p in enumerate(prompts)]
        done = await asyncio.gather(*requests)
        await backbone.aclose()
        return done

    for prompt, done in zip(prompts, asyncio.run(ask()), strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *done.token_ids]]), use_cache=False).logits[0]
        wanted = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(done.token_ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(done.logprobs), wanted, atol=1e-3)
    assert backbone.stats["row_steps"] == backbone.stats["steps"]


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text", "cohere2", "opt", "gpt2", "jamba"])
def test_models_of_attention_go_in_batches(kind: str) -> None:
    more = {"opt": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4}}
    more["jamba"] = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2}
    model = build(kind, **more.get(kind, {"sliding_window": 8}))
    assert measured(model) == "batches"
    assert ability(model) == "batches"


def test_nothing_is_asked_of_known_models(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("a known model was asked"))
    assert model.config.model_type in KNOWN
    assert ability(model) == "batches"


def test_a_model_that_its_cache_spoils_goes_without_it() -> None:
    class Spoilt(HFSession):
        def step(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().step(tokens) * 1.5

    model = build("llama")
    with torch.inference_mode():
        assert measured(model, lambda it: Spoilt(it, 1024)) == "plain"
        assert measured(model, PlainSession) == "batches"


def test_rows_of_any_order_keep_their_own_cache() -> None:
    """A model whose cache is its own gets its rows in the order in which they came."""
    model = build("mistral", sliding_window=8)
    prompts = [[5, 6, 7, 8, 9], [3], [4, 2, 6]]
    with torch.inference_mode():
        session = HFSession(model, 1024)
        session.admit(prompts, [2] * 3)
        logits = session.step(torch.tensor([10, 11, 12]))
        for row, (prompt, token) in enumerate(zip(prompts, (10, 11, 12), strict=True)):
            alone = model(input_ids=torch.tensor([[*prompt, token]]), use_cache=False).logits[0, -1]
            assert torch.allclose(logits[row], alone, atol=1e-4)
