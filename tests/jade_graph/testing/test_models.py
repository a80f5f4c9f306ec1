from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jade_graph.backbones.folders import content_version
from jade_graph.backbones.hf import HFBackbone
from jade_graph.errors import UsageError
from jade_graph.testing.models import ARCHITECTURES, MIN_VOCABULARY, Arch, make_random_model, make_tokenizer
from jade_graph.types import Message, Sampling


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("chat", [True, False])
async def test_they_load_and_answer(tmp_path: Path, arch: Arch, chat: bool) -> None:
    backbone = HFBackbone.load(make_random_model(tmp_path / "m", arch=arch, chat=chat), device="cpu")
    assert backbone.profile == ("chat" if chat else "compact")
    completion = await backbone.generate(backbone.encode([Message("user", "Who?")]), Sampling(max_new_tokens=4))
    assert len(completion.token_ids) <= 4
    await backbone.aclose()


def test_the_seed_fixes_the_weights_and_nothing_else_moves(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    versions = [
        content_version(make_random_model(tmp_path / f"m{i}", seed=seed), "m") for i, seed in enumerate((1, 1, 2))
    ]
    assert versions[0] == versions[1] != versions[2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_tokenizers_are_reversible() -> None:
    tokenizer = make_tokenizer(chat=False, vocab_size=400)
    text = "Zoë said: <answer>two\n\n  spaces</answer> 漢🎬"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) <= 400


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        make_random_model(tmp_path, arch="llam")  # type: ignore[arg-type]
    assert caught.value.error_code == "UNKNOWN_ARCHITECTURE"
    assert "llama" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        make_random_model(tmp_path, vocab_size=MIN_VOCABULARY - 1)
    assert caught.value.error_code == "MODEL_VOCABULARY"
