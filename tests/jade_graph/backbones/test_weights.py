from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jade_graph.backbones import weights
from jade_graph.errors import BackboneError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
LARGE = weights.SMALL_MODEL


@pytest.mark.parametrize(
    ("device", "parameters", "native", "expected"),
    [
        (CPU, LARGE - 1, True, torch.float32),
        (CPU, LARGE, True, torch.bfloat16),
        (CPU, LARGE, False, torch.float32),
        (CUDA, LARGE - 1, True, torch.float32),
        (CUDA, LARGE, True, torch.bfloat16),
        (CUDA, LARGE, False, torch.float16),
        (MPS, LARGE, True, torch.float16),
    ],
)
def test_precision_suits_model_and_device(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, parameters: int, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(weights, "cpu_has_bfloat16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: native)
    assert weights.choose_dtype(None, device, parameters) == expected
    assert weights.choose_dtype("float16", device, parameters) == torch.float16


def test_what_the_cpu_can_do_is_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx, avx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx, raising=False)
        assert weights.cpu_has_bfloat16() == (amx or avx)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert weights.choose_device(None) == CUDA
    assert weights.choose_device("cpu") == CPU
    for wrong in ("cuda:1", "mps", "tpu9000"):
        with pytest.raises(BackboneError) as caught:
            weights.choose_device(wrong)
        assert caught.value.error_code == "BACKBONE_DEVICE"
        assert caught.value.known == ("cuda", "cpu")


def test_unknown_precisions_are_named() -> None:
    with pytest.raises(BackboneError) as caught:
        weights.choose_dtype("int4", CPU, 1)
    assert caught.value.error_code == "BACKBONE_DTYPE"
    assert "bfloat16" in caught.value.known


def test_models_are_loaded_for_inference(plain_folder: Path) -> None:
    model = weights.load_model(plain_folder, CPU, torch.bfloat16)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_remote_code_is_not_run(plain_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain_folder, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BackboneError, match="BACKBONE_LOAD"):
        weights.load_model(folder, CPU, torch.float32)
    assert not (tmp_path / "ran").exists()


def test_broken_weights_are_typed_errors(plain_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain_folder, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(BackboneError, match="WEIGHTS_TRUNCATED"):
        weights.load_model(folder, CPU, torch.float32)


@pytest.mark.parametrize(
    ("config", "limit", "expected"),
    [
        ({"max_position_embeddings": 512}, int(1e30), 512),
        ({"max_position_embeddings": 512}, 300, 300),
        ({"n_positions": 77}, None, 77),
        ({}, None, 2048),
    ],
)
def test_context(config: dict[str, int], limit: int | None, expected: int) -> None:
    text = SimpleNamespace(**config)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    assert weights.max_context(model, SimpleNamespace(model_max_length=limit)) == expected


def test_progress_bars_stay_as_the_caller_had_them() -> None:
    from transformers.utils import logging

    for before in (True, False):
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
        with weights.quiet():
            assert not logging.is_progress_bar_enabled()
        assert logging.is_progress_bar_enabled() == before
    logging.enable_progress_bar()
