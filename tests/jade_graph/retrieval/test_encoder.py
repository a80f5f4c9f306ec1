"""Encoders: unit rows that depend on their own text alone; a tiny BERT stands for any Hugging Face model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph import plugins
from jade_graph.errors import JadeError, RetrievalError, UsageError
from jade_graph.retrieval import encoder as module
from jade_graph.retrieval.dense import encode_checked
from jade_graph.retrieval.encoder import (
    Encoder,
    HashingEncoder,
    TransformerEncoder,
    Vectors,
    load_encoder,
    minilm,
    preferred_dtype,
)

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a boat on the river cat sat query : passage".split()  # noqa: SIM905
TEXTS = ["a boat", "the cat sat on the river", "", "boat " * 50, "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(path)
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, do_lower_case=True).save_pretrained(path)
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    return path


def copy_of(folder: Path, tmp_path: Path, files: dict[str, object]) -> Path:
    for source in folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    for name, content in files.items():
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("spec", ["hash", "hash:64", "hf"])
def test_rows_are_unit_float32_in_order_and_alone(spec: str, folder: Path) -> None:
    encoder = load_encoder(f"hf:{folder}" if spec == "hf" else spec)
    together = encoder.encode(TEXTS)
    assert isinstance(encoder, Encoder)
    assert together.shape == (len(TEXTS), encoder.dim)
    assert together.dtype == np.float32
    lengths = np.linalg.norm(together, axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))
    for text, row in zip(TEXTS, together, strict=True):
        assert np.allclose(encoder.encode([text])[0], row, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dim)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_transformer_equals_mean_pooling_written_out(dtype: str, atol: float, folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    text = "the cat sat on the river"
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    wanted = hidden.mean(0).numpy()
    found = TransformerEncoder(folder, spec="t", name="t", dtype=dtype).encode([text])[0]
    assert np.allclose(found, wanted / np.linalg.norm(wanted), atol=atol)


def test_long_texts_are_cut_at_the_models_own_length(folder: Path) -> None:
    encoder = load_encoder(f"hf:{folder}")
    same = encoder.encode(["boat " * 30, "boat " * 300, "boat " * 29 + "cat"])
    assert np.allclose(same[0], same[1], atol=1e-6)
    assert not np.allclose(same[0], same[2], atol=1e-4)


def test_small_batches_change_nothing(folder: Path) -> None:
    texts = [" ".join(["boat", "cat", "river"] * n) for n in (5, 1, 9, 3, 7, 2)]
    one = TransformerEncoder(folder, spec="x", name="x", batch_tokens=20)
    many = TransformerEncoder(folder, spec="x", name="x")
    assert np.allclose(one.encode(texts), many.encode(texts), atol=1e-5)


def test_cls_pooling_and_prompts_are_read_from_the_folder(folder: Path, tmp_path: Path) -> None:
    files = {
        "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        "config_sentence_transformers.json": {"prompts": {"query": "query : ", "document": "passage : "}},
    }
    plain, special = load_encoder(f"hf:{folder}"), load_encoder(f"hf:{copy_of(folder, tmp_path, files)}")
    assert ":cls:" in special.id
    assert plain.id != special.id
    as_query, as_passage = special.encode(["a boat"], query=True), special.encode(["a boat"])
    assert not np.allclose(as_query, as_passage, atol=1e-4)
    bare = load_encoder(f"hf:{copy_of(folder, tmp_path, {'config_sentence_transformers.json': {}})}")
    assert np.allclose(as_query, bare.encode(["query : a boat"]), atol=1e-5)


def test_id_changes_with_the_weights_and_the_length_only(folder: Path, tmp_path: Path) -> None:
    first = load_encoder(f"hf:{folder}", max_tokens=16).id
    assert first == load_encoder(f"hf:{folder}", max_tokens=16, batch_tokens=10, dtype="bfloat16").id
    assert first != load_encoder(f"hf:{folder}", max_tokens=8).id
    other = copy_of(folder, tmp_path, {})
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert first.partition("@")[2] != load_encoder(f"hf:{other}", max_tokens=16).id.partition("@")[2]


def test_bfloat16_gives_nearly_the_same_vectors(folder: Path) -> None:
    exact, rough = load_encoder(f"hf:{folder}", dtype="float32"), load_encoder(f"hf:{folder}", dtype="bfloat16")
    similarity = (exact.encode(TEXTS) * rough.encode(TEXTS)).sum(1)
    assert similarity.min() > 0.99
    assert rough.encode(TEXTS).dtype == np.float32


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cpu_flags", lambda: {"avx512f", "avx512_vnni"})
    assert preferred_dtype("cpu") == "float32"
    monkeypatch.setattr(module, "_cpu_flags", lambda: {"avx512f", "amx_bf16"})
    assert preferred_dtype("cpu") == "bfloat16"
    assert preferred_dtype("mps") == "float32"


def test_minilm_knows_meaning_offline() -> None:
    encoder = minilm(dtype="float32")
    assert encoder.dim == 384
    assert encoder.id.startswith("all-MiniLM-L6-v2@")
    assert encoder.id.endswith(":mean:256")
    film, movie, rock = encoder.encode(["a film about war", "a movie on the war", "granite is a kind of stone"])
    assert film @ movie > 0.8
    assert film @ rock < 0.3


def test_hashing_is_the_same_in_another_process() -> None:
    code = (
        "from jade_graph.retrieval.encoder import HashingEncoder as H; print(H(16).encode(['a red Boat'])[0].tolist())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert np.allclose(json.loads(told), HashingEncoder(16).encode(["A RED boat"])[0])


@given(st.text(max_size=40))
def test_hashing_ignores_case_and_blanks(text: str) -> None:
    encoder = HashingEncoder(32)
    one, two = encoder.encode([text, f"  {text.casefold()}\n"])
    assert np.allclose(one, two)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("minlm", "UNKNOWN_ENCODER"),
        ("hf", "UNKNOWN_ENCODER"),
        ("hash:x", "BAD_ENCODER"),
        ("hash:2", "BAD_ENCODER"),
        ("hf:not a repo!", "ENCODER_MISSING"),
    ],
)
def test_bad_specs_are_named(spec: str, code: str) -> None:
    with pytest.raises(JadeError) as caught:
        load_encoder(spec)
    assert caught.value.error_code == code


def test_a_folder_without_a_model_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(RetrievalError, match="holds no encoder"):
        load_encoder(f"hf:{tmp_path}")
    pooling = {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}}
    with pytest.raises(RetrievalError, match="pools neither"):
        load_encoder(f"hf:{copy_of(folder, tmp_path, pooling)}")


def test_weights_that_are_damaged_are_named(tmp_path: Path, folder: Path) -> None:
    broken = copy_of(folder, tmp_path, {})
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RetrievalError) as caught:
        load_encoder(f"hf:{broken}").encode(["a"])
    assert caught.value.error_code == "BAD_ENCODER"


class Lopsided(HashingEncoder):
    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        return super().encode(texts, query=query)[:, 1:]


def test_an_encoder_that_breaks_its_word_is_caught() -> None:
    with pytest.raises(RetrievalError) as caught:
        encode_checked(Lopsided(16), ["a"])
    assert caught.value.error_code == "BAD_ENCODER"


def test_encoders_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    factories = {"mine": lambda rest, **options: HashingEncoder(int(rest)), "wrong": lambda rest: "no encoder"}
    monkeypatch.setattr(plugins, "names", lambda group: sorted(factories) if group == "jade.encoders" else [])
    monkeypatch.setattr(plugins, "load", lambda group, name: factories[name])
    assert load_encoder("mine:32").dim == 32
    with pytest.raises(UsageError, match="made no Encoder"):
        load_encoder("wrong:")
    with pytest.raises(UsageError) as caught:
        load_encoder("min:32")
    assert "mine" in caught.value.known
