"""An encoder learns from labels: resumably, into a folder that the runtime and sentence-transformers open alike."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jade_graph.backbones.folders import BUNDLED
from jade_graph.data.labels import Graded, Labelled
from jade_graph.errors import ConfigError, DataError, RetrievalError
from jade_graph.retrieval.encoder import HashingEncoder, TransformerEncoder, load_encoder
from jade_graph.retrieval.listwise import prompt
from jade_training.encoders.slates import slates
from jade_training.encoders.training import Recipe, train_encoder, trainable

RECIPE = Recipe(steps=12, batch=4, slate=4, learning_rate=3e-3, seed=3)


def _open(folder: Path) -> TransformerEncoder:
    found = load_encoder(f"hf:{folder}", dtype="float32", device="cpu")
    assert isinstance(found, TransformerEncoder)
    return found


def test_it_learns_and_is_opened_by_both(encoder: TransformerEncoder, rows: list[Labelled], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    told: list[tuple[int, int]] = []
    logged: list[dict[str, float]] = []
    figures = train_encoder(
        encoder, [*rows, Labelled("nothing", (Graded("x", "the", 0.0),))], tmp_path / "out", RECIPE,
        progress=lambda done, of: told.append((done, of)), log=lambda f, step: logged.append({**f, "step": step}),
    )  # fmt: skip
    assert (figures["queries"], figures["left_out"], figures["steps"]) == (12, 1, 12)
    assert told[-1] == (12, 12)
    assert logged[-1]["loss"] < 0.6 * logged[0]["loss"]
    assert logged[-1]["loss"] == pytest.approx(logged[-1]["infonce"] + 2 * logged[-1]["ranknet"])
    ours, texts = _open(tmp_path / "out"), ["the good topic3", "about topic3"]
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert np.allclose(ours.encode(texts), theirs.encode(texts), atol=1e-5)
    assert ours.id != encoder.id
    assert ours.id.endswith(":mean:64")
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert facts["start"]["encoder"] == encoder.id
    assert facts["hyperparameters"]["seed"] == 3
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_the_prompt_ranks_the_good_ones_first(
    encoder: TransformerEncoder, rows: list[Labelled], tmp_path: Path
) -> None:
    train_encoder(encoder, rows, tmp_path / "out", replace(RECIPE, steps=40), save_every=None)
    learned = _open(tmp_path / "out")
    right = 0
    for row in rows:
        texts = [d.text for d in row.documents]
        made = learned.encode_prompts([prompt(row.query, texts, learned)])[0]
        right += int(np.argmax(learned.encode(texts) @ made)) == 0
    assert right >= 10


def test_killed_and_begun_again_it_comes_to_the_same_weights(
    encoder: TransformerEncoder, rows: list[Labelled], tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, of: int) -> None:
        if done == 7 and of == 12:  # steps, not documents
            raise KilledError

    train_encoder(encoder, rows, tmp_path / "whole", RECIPE, save_every=3)
    with pytest.raises(KilledError):
        train_encoder(encoder, rows, tmp_path / "cut", RECIPE, save_every=3, progress=kill)
    with pytest.raises(ConfigError) as caught:
        train_encoder(encoder, rows, tmp_path / "cut", replace(RECIPE, seed=4), save_every=3)
    assert caught.value.error_code == "ENCODER_CHANGED"
    told: list[str] = []
    train_encoder(encoder, rows, tmp_path / "cut", RECIPE, save_every=3, tell=told.append)
    assert "going on from step 6" in told
    assert _open(tmp_path / "cut").encode(["the good topic3"]) == pytest.approx(
        _open(tmp_path / "whole").encode(["the good topic3"]), abs=1e-6
    )


def test_slates_do_not_depend_on_the_order_of_the_labels(encoder: TransformerEncoder, rows: list[Labelled]) -> None:
    shuffled = [replace(r, documents=tuple(random.Random(5).sample(r.documents, len(r.documents)))) for r in rows]
    made = slates(rows, encoder, 3)
    assert made == slates(shuffled, encoder, 3)
    assert all(len(s.documents) == 3 and max(s.labels) == 1.0 for s in made)


@pytest.mark.slow
def test_a_causal_backbone_learns_with_its_last_token(tmp_path: Path, rows: list[Labelled]) -> None:
    start: Any = load_encoder(f"hf:{BUNDLED['tiny']}", dtype="float32", device="cpu")
    words = [replace(r, query=f"who wrote film {i}") for i, r in enumerate(rows[:4])]
    figures = train_encoder(start, words, tmp_path / "out", replace(RECIPE, steps=2, prompt_tokens=128))
    learned = _open(tmp_path / "out")
    assert figures["steps"] == 2
    assert ":last:" in learned.id
    assert learned.prompt_tokens == 128


def test_what_cannot_learn_says_so(encoder: TransformerEncoder, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        train_encoder(encoder, [Labelled("q", (Graded("a", "the", 0.5), Graded("b", "good", 0.5)))], tmp_path)
    assert caught.value.error_code == "LABELS_EMPTY"
    with pytest.raises(RetrievalError) as refused:
        trainable(HashingEncoder())
    assert refused.value.error_code == "BAD_ENCODER"
