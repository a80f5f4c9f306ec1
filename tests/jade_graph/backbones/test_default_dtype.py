"""transformers changes torch's default dtype, for all threads, while it loads a model: what decodes meanwhile must not
notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from jade_graph.backbones import TINY
from jade_graph.backbones.hf import HFBackbone
from jade_graph.types import Completion, Message, Sampling


@pytest.fixture
def loading_elsewhere() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("lean", [True, False])
async def test_a_model_that_is_loaded_meanwhile_changes_no_number(lean: bool, loading_elsewhere: None) -> None:
    backbone = HFBackbone.load(TINY, device="cpu", lean=lean)
    assert (backbone._slot.loaded.lean is not None) == lean
    prompt = backbone.encode([Message("user", "Who directed it? This one says 0.7 and means it.")])
    sampling = Sampling(temperature=0.7, max_new_tokens=8, seed=3)

    async def ask() -> Completion:
        return await backbone.generate(prompt, sampling)

    before = await ask()
    torch.set_default_dtype(torch.bfloat16)
    during = await ask()
    assert during.token_ids == before.token_ids
    assert during.logprobs == before.logprobs
    await backbone.aclose()
