from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jade_graph.backbones.folders import content_version, count_parameters, find_folder
from jade_graph.errors import BackboneError


def test_the_version_is_the_hash_of_the_weights(plain_folder: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((plain_folder / "model.safetensors").read_bytes()).hexdigest()
    assert content_version(plain_folder) == f"plain@{digest[:12]}"
    copy = shutil.copytree(plain_folder, tmp_path / "other")
    (copy / "README.md").write_text("says nothing about weights")
    assert content_version(copy) == f"other@{digest[:12]}"
    assert content_version(copy, "named") == f"named@{digest[:12]}"


def test_every_shard_counts(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(5), "c": torch.tensor(1.0)}, tmp_path / "model-00002-of-00002.safetensors")
    assert count_parameters(tmp_path) == 12
    before = content_version(tmp_path)
    save_file({"b": torch.ones(5), "c": torch.tensor(1.0)}, tmp_path / "model-00002-of-00002.safetensors")
    assert content_version(tmp_path) != before


def test_files_of_the_hub_cache_are_not_hashed_again(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    digest = "0123456789ab" + "c" * 52
    (blobs / digest).write_bytes(b"not what the name says: proof that it was not read")
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    assert content_version(snapshot, "m") == "m@0123456789ab"


def test_parameters_are_counted_from_headers(plain_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from jade_graph.backbones.weights import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(plain_folder)
    assert count_parameters(plain_folder) == sum(p.numel() for p in model.parameters())


def test_other_formats_are_refused(plain_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain_folder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError) as caught:
        find_folder(str(folder))
    assert caught.value.error_code == "BACKBONE_NO_SAFETENSORS"
    assert find_folder(str(folder), weights=False) == folder


@pytest.mark.parametrize("name", ["/no/such/folder", "../x/y/z", "a/b/c", "what is this?"])
def test_missing_models_are_named(name: str) -> None:
    with pytest.raises(BackboneError) as caught:
        find_folder(name)
    assert caught.value.error_code == "BACKBONE_NOT_FOUND"
    assert repr(name) in caught.value.message


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="BACKBONE_NOT_FOUND"):
        find_folder(str(tmp_path))
