"""An adapter merged by us is the model that PEFT merges; what does not fit is told, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jade_graph.backbones.lora import CONFIG, WEIGHTS, merge
from jade_graph.errors import BackboneError
from jade_graph.testing.models import make_random_model

peft = pytest.importorskip("peft")
# PEFT asks transformers by a name that this one calls old.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and an adapter of it that changes every linear layer."""
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("lora")
    base = make_random_model(root / "base", width=16, heads=2)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.normal_()
    adapted.save_pretrained(root / "adapter")
    return base, root / "adapter"


def test_it_is_what_peft_merges_and_the_rest_is_the_base_bit_for_bit(made: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base, adapter = made
    merge(adapter, base, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    theirs = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64).state_dict()
    before = load_file(base / "model.safetensors")
    changed = 0
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        assert weight.dtype == before[name].dtype
        assert torch.allclose(ours[name], theirs[name].to(weight.dtype).double(), atol=0, rtol=1e-6), name
        changed += not torch.equal(weight, before[name])
    assert changed == sum(name.endswith("proj.weight") for name in before)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("damage", ["dora", "rank pattern", "other tensor", "no such layer", "half", "shape", "torn"])
def test_what_is_no_plain_adapter_of_the_base_is_an_error_and_leaves_the_base(
    damage: str, made: Any, tmp_path: Path
) -> None:
    base, adapter = made
    wrong = tmp_path / "wrong"
    shutil.copytree(adapter, wrong)
    config, tensors = json.loads((wrong / CONFIG).read_text()), load_file(wrong / WEIGHTS)
    first = next(name for name in tensors if "lora_A" in name)
    if damage == "dora":
        config["use_dora"] = True
    elif damage == "rank pattern":
        config["rank_pattern"] = {"q_proj": 8}
    elif damage == "other tensor":
        tensors["base_model.model.lm_head.weight"] = torch.zeros(2)
    elif damage == "no such layer":
        for half in ("A", "B"):
            tensors[f"base_model.model.model.layers.99.q_proj.lora_{half}.weight"] = torch.zeros(3, 3)
    elif damage == "half":
        del tensors[first]
    elif damage == "shape":
        tensors[first] = torch.zeros(2, 2)
    (wrong / CONFIG).write_text(json.dumps(config))
    save_file(tensors, wrong / WEIGHTS)
    if damage == "torn":
        (wrong / WEIGHTS).write_bytes((wrong / WEIGHTS).read_bytes()[:100])
    weights = (base / "model.safetensors").read_bytes()
    with pytest.raises(BackboneError) as caught:
        merge(wrong, base, tmp_path / "out")
    assert caught.value.error_code == "ADAPTER_LOAD"
    assert (base / "model.safetensors").read_bytes() == weights
