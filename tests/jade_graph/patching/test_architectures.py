"""Stock architectures: sites are found in each, and the shortcuts give what plain passes give."""

from __future__ import annotations

import pytest
import torch
import transformers

from jade_graph.patching import look, make_pair
from jade_graph.patching.passes import Model, Passes, open_passes

SMALL = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
OLD = {"vocab_size": 40, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
       "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
KINDS = {
    "Qwen2": SMALL,
    "Gemma3ForCausalLM": {**SMALL, "head_dim": 8, "sliding_window": 4},
    "Mistral": {**SMALL, "sliding_window": 4},
    "GPTNeoX": {k: v for k, v in SMALL.items() if k != "num_key_value_heads"},
    "OPT": {"vocab_size": 40, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "max_position_embeddings": 64},
    "GPT2": OLD,
    "GPTJ": {**OLD, "rotary_dim": 4},
    "Mixtral": {**SMALL, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Lfm2": {**SMALL, "layer_types": ["conv", "full_attention", "conv"], "full_attn_idxs": None},
    "Mamba2": {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_heads": 4, "head_dim": 16,
               "state_size": 8, "n_groups": 1, "expand": 2, "chunk_size": 8},
}  # fmt: skip


def made(name: str):
    config = {"Gemma3ForCausalLM": "Gemma3TextConfig"}.get(name, f"{name}Config")
    kind = {"GPT2": "GPT2LMHeadModel"}.get(name, name if name.endswith("LM") else f"{name}ForCausalLM")
    torch.manual_seed(0)
    given = {k: v for k, v in KINDS[name].items() if v is not None}
    model = getattr(transformers, kind)(getattr(transformers, config)(**given)).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.25)
    return model


PAIR = make_pair(
    [3, 4, 5, 6, 7, 8, 9, 10], [3, 4, 5, 16, 7, 8, 9, 10], [20, 21, 22], [20, 23],
    {"a": [0, 1, 2], "b": [3], "c": [4, 5, 6]},
)  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_shortcuts_give_what_whole_passes_give(name, monkeypatch):
    model = made(name)
    quick = look(model, [PAIR])
    monkeypatch.setattr("jade_graph.patching.looking.open_passes", lambda on, pair: Passes(on, pair, shortcuts=False))
    plain = look(model, [PAIR])
    assert quick.clean == pytest.approx(plain.clean, abs=1e-4)
    assert [c.site for c in quick.cells] == [c.site for c in plain.cells]
    between = abs(plain.clean[0] - plain.corrupt[0])
    for one, two in zip(quick.cells, plain.cells, strict=True):
        assert one.recovery == pytest.approx(two.recovery, abs=2e-4 / between), one.site
    assert (plain.own, plain.whole) == pytest.approx((0, 1), abs=1e-3)
    assert plain.value("resid", -1, "b") == pytest.approx(1.0, abs=1e-3), "the swapped token is all the difference"


def test_where_the_shortcuts_serve_and_where_they_do_not():
    taken = {name: open_passes(Model(made(name)), PAIR).shortcuts for name in KINDS}
    assert taken == {name: name not in ("Lfm2", "Mamba2") for name in KINDS}


def test_layers_that_do_not_attend_have_no_heads():
    found = look(made("Lfm2"), [PAIR])
    assert {c.site.layer for c in found.cells if c.site.kind == "head"} == {1}
    assert {c.site.layer for c in found.cells if c.site.kind == "mlp"} == {0, 1, 2}
