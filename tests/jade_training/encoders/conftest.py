"""A sentence encoder of no size: one layer, words of its own, written as sentence-transformers would."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.data.labels import Graded, Labelled
from jade_graph.retrieval.encoder import TransformerEncoder
from jade_graph.testing.encoders import make_random_encoder

WORDS = [*(f"topic{i}" for i in range(12)), "good", "bad", "about", "the"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_encoder(tmp_path_factory.mktemp("encoders") / "small", WORDS)


@pytest.fixture
def encoder(folder: Path) -> TransformerEncoder:
    return TransformerEncoder(folder, spec=f"hf:{folder}", name="small", dtype="float32", device="cpu")


@pytest.fixture
def rows() -> list[Labelled]:
    """A query names a topic; of its passages the good ones are of use."""
    return [
        Labelled(
            f"about topic{i}",
            (
                Graded(f"g{i}", f"the good topic{i}", 1.0),
                Graded(f"m{i}", f"the topic{i}", 0.5),
                Graded(f"b{i}", f"the bad topic{i}", 0.0),
                Graded(f"o{i}", f"the good topic{(i + 1) % 12}", 0.0),
            ),
        )
        for i in range(12)
    ]
