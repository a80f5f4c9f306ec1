"""The bundled model: small, stock, safe to load, with the tokenizer that the code builds and a card of its figures."""

import json

import torch

from jade_graph.backbones import TINY, load_backbone
from jade_graph.backbones.folders import BUNDLED
from jade_graph.microworld.questions import BEST_PLAN, KINDS
from jade_graph.types import Message
from jade_training.pretrain.card import render_card
from jade_training.pretrain.tokenizer import build_tokenizer


def test_it_is_small_and_carries_no_code_or_pickle():
    files = [p for folder in BUNDLED.values() for p in folder.iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 10_000_000
    assert {p.suffix for p in files} <= {".json", ".md", ".safetensors"}


def test_it_loads_as_a_stock_model_with_finite_logits():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY, trust_remote_code=False, dtype=torch.float32)
    assert type(model).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


async def test_its_tokenizer_is_the_one_that_the_code_builds():
    backbone = load_backbone("tiny")
    built = build_tokenizer()
    try:
        assert backbone.profile == "compact"
        assert backbone.max_context == 512
        assert backbone.eos_token_id == built.eos_token_id
        text = "plan root : Who is the director of Silent Storm?\n"
        assert backbone.encode([Message("user", text)]) == built.encode(text, add_special_tokens=False)
    finally:
        await backbone.aclose()


def test_its_card_says_what_was_measured():
    figures = json.loads((TINY / "figures.json").read_text("utf-8"))
    card = (TINY / "README.md").read_text("utf-8")
    assert [m["settings"]["split"] for m in figures["measured"]] == ["validation", "test"]
    for measured in figures["measured"]:
        assert set(measured["plan_table"]["shares"]) == set(KINDS)
        assert measured["plan_table_markdown"] in card
        assert f"{measured['arms']['jade, greedy']['f1']:.3f}" in card
        assert measured["arms"]["jade, greedy"]["illegal"] < 0.05
        assert measured["arms"]["jade, oracle"]["f1"] >= 0.95
        cells = measured["plan_table"]["cells"]
        assert min(cells[plan][kind]["f1"] for kind, plan in BEST_PLAN.items()) >= 0.15  # something to learn from


def test_a_card_names_the_hardest_kind():
    figures = json.loads((TINY / "figures.json").read_text("utf-8"))
    about = {"size_mb": 2.0, "vocabulary": 1200, "context": 512, "width": 128, "layers": 4, "heads": 4}
    text = render_card(figures["trained"], about, figures["measured"])
    assert text.count("Hardest kind under the plan that is right for it") == 2


def test_the_hasty_one_is_the_same_model_that_reads_worse():
    hasty = BUNDLED["tiny-hasty"]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (hasty / name).read_bytes() == (TINY / name).read_bytes()
    figures = [json.loads((folder / "figures.json").read_text("utf-8")) for folder in (TINY, hasty)]
    for good, bad in zip(*(f["measured"] for f in figures), strict=True):
        assert bad["plan_table"]["routed"]["f1"] < good["plan_table"]["routed"]["f1"] - 0.15
        assert bad["arms"]["jade, oracle"]["f1"] >= 0.95
    card = (hasty / "README.md").read_text("utf-8")
    assert "a worse reader on purpose" in card
    assert all(m["plan_table_markdown"] in card for m in figures[1]["measured"])
    assert "on purpose" not in (TINY / "README.md").read_text("utf-8")


async def test_the_asking_one_speaks_the_old_words_alike_and_leaves_room_for_learning():
    folder = BUNDLED["tiny-ask"]
    assert sum(p.stat().st_size for p in folder.glob("*.safetensors")) < 5_000_000
    old, new = load_backbone("tiny"), load_backbone("tiny-ask")
    built = build_tokenizer(asking=True)
    try:
        for text in ("plan root : Who is the director of Silent Storm?\n", "Document0 : unknown.\nselect : When?\n"):
            assert new.encode([Message("user", text)]) == old.encode([Message("user", text)])
        text = "step 1 : Who directed #1? = unknown\npredicted : unknown\nsearch : Who directed Silent Storm?\n"
        assert new.encode([Message("user", text)]) == built.encode(text, add_special_tokens=False)
        assert new.profile == "compact"
    finally:
        await old.aclose()
        await new.aclose()
    figures = json.loads((folder / "figures.json").read_text("utf-8"))
    card = (folder / "README.md").read_text("utf-8")
    for measured in figures["measured"]:
        assert set(measured["arms"]["m-ask, greedy"]["f1_by_kind"]) == set(KINDS)
        assert 0.15 <= measured["arms"]["m-ask, greedy"]["f1"] <= 0.45
        assert measured["arms"]["m-ask, greedy"]["illegal"] < 0.05
        assert measured["arms"]["m-ask, oracle"]["f1"] >= 0.95
        assert f"{measured['arms']['m-ask, greedy']['f1']:.3f}" in card
