"""Encoders as versions: registered as what they are, judged on the same queries, swapped in whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jade_graph.backbones import TINY
from jade_graph.data import Dataset
from jade_graph.data.labels import Graded, Labelled, query_hash
from jade_graph.errors import RegistryError, RetrievalError, UsageError
from jade_graph.gate.encoders import (
    EncoderPolicy,
    Judged,
    Ranks,
    judge,
    judged_labels,
    judged_of,
    promote_encoder,
)
from jade_graph.registry import Registry
from jade_graph.registry import encoders as registered
from jade_graph.retrieval import reembedding
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.encoder import HashingEncoder, load_encoder
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.retrieval.pooling import ENCODER_FILE
from jade_graph.retrieval.reembedding import embed_beside, open_beside, swap_encoder
from jade_graph.testing.encoders import make_random_encoder
from jade_graph.types import Passage, Question

TOPICS = [f"topic{i}" for i in range(40)]
PASSAGES = [Passage(f"p{i}", f"the good {topic}") for i, topic in enumerate(TOPICS)]
JUDGED = [Judged(f"about {topic}", {f"p{i}": 1.0}) for i, topic in enumerate(TOPICS)]


def _encoder(folder: Path, *, learned: tuple[str, ...] = ()) -> Path:
    """As jade train-encoder writes one."""
    made = make_random_encoder(folder, [*TOPICS, "the", "good", "about"])
    about = {"schema": 1, "pooling": "mean", "max_tokens": 64, "learned": [query_hash(q) for q in learned]}
    (made / ENCODER_FILE).write_text(json.dumps(about))
    (made / "manifest.json").write_text(json.dumps({"seeds": [3], "data": {"labels": "abc"}, "metrics": {"loss": 0.5}}))
    return made


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path) -> Registry:
    (tmp_path / "data").mkdir()
    shutil.copy(empty_database, tmp_path / "data" / "mlflow.db")
    return Registry(
        f"sqlite:///{tmp_path / 'data' / 'mlflow.db'}", model="jade-encoder", data_dir=tmp_path / "data",
        holds="encoder",
    )  # fmt: skip


def _ranks(values: list[float]) -> list[Ranks]:
    return [Ranks(str(i), v, float(v > 0.5)) for i, v in enumerate(values)]


def test_a_gain_passes_and_what_is_no_gain_does_not() -> None:
    rng = np.random.default_rng(0)
    old = rng.uniform(0.2, 0.6, 200)
    better, same = _ranks(list(np.clip(old + 0.2, 0, 1))), _ranks(list(old[::-1]))
    base = _ranks(list(old))
    assert judge(better, base).passed
    assert not judge(same, base).passed
    assert not judge(base, base).passed
    few = judge(better[:20], base[:20])
    assert [f.rule for f in few.findings if not f.passed] == ["questions"]
    found = [Ranks(str(i), 0.6, 0.9) for i in range(100)]
    lost = [Ranks(str(i), 0.7, 0.9 if i % 10 else 0.0) for i in range(100)]
    assert [f.rule for f in judge(lost, found).findings if not f.passed] == ["recall"]
    with pytest.raises(UsageError) as caught:
        judge(better[1:], base[:-1])
    assert caught.value.error_code == "EVAL_NOT_PAIRED"


def test_an_encoder_is_a_version_of_its_own_kind(registry: Registry, tmp_path: Path, monkeypatch: Any) -> None:
    folder = _encoder(tmp_path / "encoder")
    version = registered.register(registry, folder)
    assert (version.number, version.tags["jade.kind"], version.metrics) == (1, "encoder", {"loss": 0.5})
    assert registered.register(registry, folder).number == 1
    assert registry.manifest(1)["seeds"] == [3]
    found = registered.opened(registry, "challenger", dtype="float32")
    assert found.spec == "models:/jade-encoder/1"
    direct = load_encoder(f"hf:{folder}", dtype="float32")
    assert found.encode(["the good topic3"]) == pytest.approx(direct.encode(["the good topic3"]))
    with pytest.raises(RegistryError) as caught:
        registry.register(TINY)
    assert caught.value.error_code == "VERSION_KIND"
    with pytest.raises(RegistryError) as caught:
        Registry(registry.uri, data_dir=registry.place.data).register(folder)
    assert caught.value.error_code == "VERSION_KIND"


def test_a_better_encoder_is_promoted_and_the_corpus_swapped(registry: Registry, tmp_path: Path, declared: Any) -> None:
    root = registry.place.data
    build_corpus(PASSAGES, "topics", root, "hash:8")
    registered.register(registry, _encoder(tmp_path / "encoder", learned=("about topic0", "About  topic1")))
    before = open_corpus("topics", root)
    dry = promote_encoder(
        registry, 1, "topics", root, lambda _: JUDGED, mode="dense", policy=EncoderPolicy(minimum=20), dry_run=True
    )
    assert dry.verdict is not None
    assert dry.verdict.passed
    assert (dry.left_out, dry.verdict.n, dry.swapped) == (2, 38, False)
    assert open_corpus("topics", root).encoder_id == before.encoder_id  # nothing that is read has changed
    done = promote_encoder(
        registry, 1, "topics", root, lambda _: JUDGED, mode="dense", policy=EncoderPolicy(minimum=20)
    )
    assert done.swapped
    assert done.promotion is not None
    assert done.promotion.kind == "first"
    assert registry.current() == 1
    after = open_corpus("topics", root, mode="dense")  # named by its number, found in its own data folder
    assert after.encoder_id == registered.opened(registry, 1).id
    fresh = MemoryRetriever(PASSAGES, "dense", registered.opened(registry, 1))
    assert after.corpus_id == fresh.corpus_id
    assert [p.id for p in after.search_sync("about topic7", 5)] == [p.id for p in fresh.search_sync("about topic7", 5)]
    with pytest.raises(RetrievalError) as caught:
        promote_encoder(registry, 1, "topics", root, lambda _: JUDGED)
    assert caught.value.error_code == "ENCODER_SAME"


def test_a_worse_encoder_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    root = registry.place.data
    build_corpus(PASSAGES, "topics", root, HashingEncoder(512))
    registered.register(registry, _encoder(tmp_path / "encoder"))
    done = promote_encoder(registry, 1, "topics", root, lambda _: JUDGED, mode="dense")
    assert done.verdict is not None
    assert not done.verdict.passed
    assert (done.swapped, done.promotion, registry.current()) == (False, None, None)
    assert open_corpus("topics", root).encoder_id == "hash-512-v1"
    with pytest.raises(UsageError) as caught:
        promote_encoder(registry, 1, "topics", root, lambda _: [])
    assert caught.value.error_code == "NOTHING_JUDGED"
    with pytest.raises(UsageError) as caught:
        promote_encoder(registry, 1, "topics", root, lambda _: JUDGED, force=True)
    assert caught.value.error_code == "PROMOTION_REASON"
    forced = promote_encoder(registry, 1, "topics", root, lambda _: JUDGED, force=True, reason="to see")
    assert forced.swapped
    assert forced.promotion is not None
    assert forced.promotion.kind == "force"


def test_a_corpus_is_never_half_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = HashingEncoder(32), HashingEncoder(64)
    built = build_corpus(PASSAGES, "topics", tmp_path, old)
    monkeypatch.setattr("jade_graph.retrieval.corpus._SLICE", 10)

    class KilledError(Exception):
        pass

    def kill(phase: str, done: int, of: int) -> None:
        if done == 20:
            raise KilledError

    with pytest.raises(KilledError):
        swap_encoder("topics", tmp_path, new, progress=kill)
    assert open_corpus("topics", tmp_path, old).corpus_id == built.corpus_id
    with pytest.raises(RetrievalError) as caught:
        open_beside("topics", tmp_path, new)
    assert caught.value.error_code == "ENCODER_MISMATCH"
    beside = embed_beside("topics", tmp_path, new)
    assert (beside.embedded, beside.reused) == (20, 20)  # what was embedded is not embedded again
    assert open_beside("topics", tmp_path, new).corpus_id == MemoryRetriever(PASSAGES, "hybrid", new).corpus_id
    assert open_corpus("topics", tmp_path, old).corpus_id == built.corpus_id
    build_corpus(PASSAGES[:30], "topics", tmp_path, old)  # a newer corpus: nothing of an older one comes back
    swapped = swap_encoder("topics", tmp_path, new)
    assert swapped.passages == 30
    assert open_corpus("topics", tmp_path, new).corpus_id == MemoryRetriever(PASSAGES[:30], "hybrid", new).corpus_id
    with reembedding.chroma_store(tmp_path / "corpora" / "topics" / "chroma", new.id) as store:
        assert len(store.rows()) == 30


def test_what_is_judged_is_found_by_id_or_by_text() -> None:
    corpus = MemoryRetriever(PASSAGES)
    foreign = [Passage(f"x{i}", p.text) for i, p in enumerate(PASSAGES[:3])]
    asked = [Question("q0", "about topic0", supporting=("x0",)), Question("q1", "of none", supporting=("zz",))]
    assert judged_of(Dataset("d", asked, foreign), corpus) == [Judged("about topic0", {"p0": 1.0})]
    rows = [
        Labelled("a", (Graded("p1", "the good topic1", 0.5), Graded("y", "other", 0.0))),
        Labelled("b", (Graded("y2", "the good topic2", 1.0),)),
        Labelled("c", (Graded("y", "other", 1.0),)),
        Labelled("d", (Graded("p1", "the good topic1", 0.0),)),
    ]
    assert judged_labels(rows, corpus) == [Judged("a", {"p1": 0.5}), Judged("b", {"p2": 1.0})]
