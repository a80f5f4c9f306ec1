"""Adapters on one of two tied ends: what is served and exported is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jade_graph.backbones.merging import answers, merged, require_like
from jade_graph.errors import BackboneError
from jade_graph.registry import adapters
from jade_graph.testing.models import make_random_model
from jade_training.learner.adapters import served


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model(tmp_path_factory.mktemp("tied") / "base", arch="qwen2", chat=True, seed=3)


def adapted(base: Path, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    model = make.from_pretrained(str(base), dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            del name
    return model.eval()


TARGETS = [
    {"target_modules": ["lm_head"]},
    {"target_modules": ["embed_tokens"]},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    {"target_modules": ["q_proj"]},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", TARGETS, ids=str)
def test_what_is_merged_computes_what_was_trained(base: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    model = adapted(base, **options)
    wanted = answers(model)
    assert torch.allclose(answers(served(model)), wanted, atol=1e-4)
    assert torch.allclose(answers(model), wanted)
    model.save_pretrained(tmp_path / "adapter")
    adapters.merge(tmp_path / "adapter", base, tmp_path / "registered")
    plain = merged(model)
    assert torch.allclose(answers(plain), wanted, atol=1e-4)
    plain.save_pretrained(tmp_path / "exported")
    for written in ("registered", "exported"):
        require_like(tmp_path / written, wanted)


def test_what_computes_other_numbers_is_refused(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    wanted = answers(make.from_pretrained(str(base)))
    require_like(base, wanted)
    with pytest.raises(BackboneError) as caught:
        require_like(base, wanted + torch.randn_like(wanted) * 0.1)
    assert caught.value.error_code == "EXPORT_DIFFERS"
