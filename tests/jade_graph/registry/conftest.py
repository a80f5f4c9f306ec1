"""A registry per test, and variants of the bundled model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jade_graph.backbones import TINY
from jade_graph.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path) -> Registry:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(empty_database, data / "mlflow.db")
    return Registry(f"sqlite:///{data / 'mlflow.db'}", data_dir=data)


def tensors(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write(folder: Path, values: dict) -> None:
    from safetensors.torch import save_file

    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """`variant("a", .01)`: the bundled model with its embedding times 1.01; equal arguments make equal weights."""

    def make(name: str, change: float = 0.0) -> Path:
        folder = tmp_path / name
        shutil.copytree(TINY, folder)
        if change:
            values = tensors(folder)
            first = "model.embed_tokens.weight"
            values[first] = (values[first].float() * (1 + change)).to(values[first].dtype)
            write(folder, values)
        return folder

    return make
