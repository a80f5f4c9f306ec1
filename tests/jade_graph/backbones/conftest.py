"""Random checkpoints, made once, and backbones over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jade_graph.testing.models import make_random_model

if TYPE_CHECKING:
    from jade_graph.backbones.hf import HFBackbone


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama without a chat template."""
    return make_random_model(tmp_path_factory.mktemp("models") / "plain", arch="llama", chat=False, seed=1)


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 as instruct models are: template, two end tokens, grouped attention, tied head."""
    return make_random_model(tmp_path_factory.mktemp("models") / "chat", arch="qwen2", chat=True, seed=2)


@pytest.fixture(scope="session", params=["lean", "transformers"])
def plain(request: pytest.FixtureRequest, plain_folder: Path) -> Iterator[HFBackbone]:
    """The Llama, by either forward pass."""
    yield from _open(plain_folder, lean=request.param == "lean")


@pytest.fixture(scope="session")
def chat(chat_folder: Path) -> Iterator[HFBackbone]:
    yield from _open(chat_folder, lean=True)


def _open(folder: Path, *, lean: bool) -> Iterator[HFBackbone]:
    import asyncio

    from jade_graph.backbones.hf import HFBackbone

    backbone = HFBackbone.load(folder, device="cpu", lean=lean)
    yield backbone
    asyncio.run(backbone.aclose())
