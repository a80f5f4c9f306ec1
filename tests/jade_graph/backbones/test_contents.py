"""What is checked is what is loaded: folders that would have a loader read anything else are refused unopened."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones.contents import count_parameters, require_whole
from jade_graph.backbones.folders import content_version, find_folder
from jade_graph.backbones.weights import load_model
from jade_graph.errors import BackboneError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(plain_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(plain_folder, tmp_path / "other")
    return shutil.copytree(plain_folder, tmp_path / "model")


def index(folder: Path, *names: str, tensors: Any = None) -> None:
    mapped = tensors if tensors is not None else {f"t{number}": name for number, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def decoy(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "x.safetensors")


def pickled(folder: Path) -> None:
    decoy(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    index(folder, "pytorch_model.bin")


def outside(folder: Path) -> None:
    decoy(folder)
    index(folder, "../other/model.safetensors")


def absolute(folder: Path) -> None:
    decoy(folder)
    index(folder, str(folder.parent / "other" / "model.safetensors"))


def below(folder: Path) -> None:
    decoy(folder)
    (folder / "sub").mkdir()
    shutil.copy(folder / "x.safetensors", folder / "sub")
    index(folder, "sub/x.safetensors")


def mixed(folder: Path) -> None:
    decoy(folder)
    index(folder, "x.safetensors", "pytorch_model.bin")


def not_there(folder: Path) -> None:
    decoy(folder)
    index(folder, "y.safetensors")


def no_map(folder: Path) -> None:
    decoy(folder)
    index(folder, tensors=[])


def configured(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "../other/model.safetensors"}))


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder.parent / "other")}))


def linked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder.parent / "other" / "model.safetensors")


def linked_text(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(folder.parent / "other" / "tokenizer.json")


def fifo(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def device(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to("/dev/zero")


SPOILT = [pickled, outside, absolute, below, mixed, not_there, no_map, configured, adapter, linked, linked_text, fifo]


@pytest.mark.parametrize("spoil", [*SPOILT, device], ids=lambda f: f.__name__)
def test_folders_that_name_other_files_are_refused(folder: Path, spoil: Callable[[Path], None]) -> None:
    import torch

    spoil(folder)
    for load in (lambda: find_folder(str(folder)), lambda: load_model(folder, torch.device("cpu"), torch.float32)):
        with pytest.raises(BackboneError) as caught:
            load()
        assert caught.value.error_code == "BACKBONE_FILES"


def test_what_loads_today_keeps_its_version(folder: Path) -> None:
    before = content_version(folder)
    assert require_whole(folder) == [folder / "model.safetensors"]
    assert content_version(find_folder(str(folder))) == before
    decoy(folder)
    (folder / "x.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index(folder, "model-00001-of-00001.safetensors")
    assert require_whole(folder) == [folder / "model-00001-of-00001.safetensors"]
    assert content_version(folder) == before


def test_links_within_a_folder_and_into_the_hubs_cache_are_its_own(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "kept.bin")
    (folder / "model.safetensors").symlink_to("kept.bin")
    assert require_whole(folder)
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "other").iterdir():
        shutil.move(str(path), str(blobs / path.name))
        (snapshot / path.name).symlink_to(blobs / path.name)
    assert require_whole(snapshot)


def headed(told: Any, data: bytes = b"") -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


BROKEN = {
    "empty": b"",
    "cut in its length": b"\x01\x02",
    "a length beyond the file": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": headed(b"nonsense"),
    "no text": headed(b"\xff\xfe\x00"),
    "deep": headed(b"[" * 200_000),
    "a list": headed([1, 2]),
    "a tensor that is none": headed({"t": 3}),
    "no offsets": headed({"t": {"dtype": "F32", "shape": [1]}}),
    "offsets outside": headed(tensor([2], [0, 8]), b"\0" * 4),
    "offsets turned round": headed(tensor([1], [4, 0]), b"\0" * 8),
    "a shape of other bytes": headed(tensor([3], [0, 4]), b"\0" * 4),
    "a shape below nothing": headed(tensor([-1, -1], [0, 4]), b"\0" * 4),
    "a shape of words": headed(tensor(["a"], [0, 4]), b"\0" * 4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_typed_errors(folder: Path, name: str) -> None:
    (folder / "model.safetensors").write_bytes(BROKEN[name])
    for look in (count_parameters, require_whole):
        with pytest.raises(BackboneError) as caught:
            look(folder)
        assert caught.value.error_code == "WEIGHTS_TRUNCATED"
