"""One vector of many: how a folder says it, and that right-padded rows pool as they do alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import RetrievalError
from jade_graph.retrieval.encoder import TransformerEncoder, load_encoder, minilm
from jade_graph.retrieval.pooling import ENCODER_FILE, Pooling, is_encoder, readable


def _folder(path: Path, **files: dict[str, Any]) -> Path:
    for name, content in files.items():
        where = path / {"config": "config.json", "pooling": "1_Pooling/config.json", "own": ENCODER_FILE}[name]
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}, "cls"),
        ({"pooling": {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}}, "last"),
        ({"pooling": {"pooling_mode_mean_tokens": True}}, "mean"),
        ({"pooling": {"word_embedding_dimension": 8}}, "mean"),
        ({"pooling": {"embedding_dimension": 8, "pooling_mode": "lasttoken"}}, "last"),
        ({"pooling": {"pooling_mode": "cls"}}, "cls"),
        ({"config": {"architectures": ["BertModel"]}}, "mean"),
        ({"config": {"architectures": ["LlamaForCausalLM"]}}, "last"),
        ({"config": {"architectures": ["LlamaForCausalLM"]}, "own": {"pooling": "mean"}}, "mean"),
    ],
)
def test_a_folder_says_how_it_pools(tmp_path: Path, files: dict[str, Any], mode: str) -> None:
    assert Pooling.of(_folder(tmp_path, **files)).mode == mode


@pytest.mark.parametrize(
    "files",
    [
        {"pooling": {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}},
        {"pooling": {"pooling_mode": "weightedmean"}},
        {"pooling": {"pooling_mode": ["mean", "cls"]}},
        {"own": {"pooling": "max"}},
    ],
)
def test_another_pooling_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    with pytest.raises(RetrievalError, match="pools neither"):
        Pooling.of(_folder(tmp_path, **files))


def test_prompts_may_be_as_long_as_the_positions(tmp_path: Path) -> None:
    assert minilm().prompt_tokens == 512
    assert minilm().id.endswith(":mean:256")
    own = {"pooling": "mean", "prompt_tokens": 300, "prompt_documents": 7}
    found = Pooling.of(_folder(tmp_path, config={"max_position_embeddings": 512}, own=own))
    assert (found.prompt_tokens, found.prompt_documents) == (300, 7)
    assert is_encoder(tmp_path)


def test_a_folder_says_how_much_it_reads(tmp_path: Path) -> None:
    assert readable(tmp_path) == 512
    for name, content, expected in (
        ("tokenizer_config.json", {"model_max_length": 128}, 512),  # of a plain model: nothing is said of the encoder
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, 128),
        ("config.json", {"max_position_embeddings": 100}, 100),
        ("sentence_bert_config.json", {"max_seq_length": 256}, 256),
        (ENCODER_FILE, {"pooling": "mean", "max_tokens": 60}, 60),
    ):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        assert readable(tmp_path) == expected


def test_a_causal_backbone_pools_its_last_token_behind_an_end_token() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = BUNDLED["tiny"]
    encoder = load_encoder(f"hf:{folder}", dtype="float32")
    assert isinstance(encoder, TransformerEncoder)
    assert ":last:" in encoder.id
    texts = ["who wrote dune", "a", "the city of momo lies on a river and has many bridges"]
    together, alone = encoder.encode(texts), np.concatenate([encoder.encode([t]) for t in texts])
    assert np.allclose(together, alone, atol=1e-5)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    ids = [*tokenizer(texts[0])["input_ids"]]
    ids = ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
    with torch.inference_mode():
        last = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    assert np.allclose(together[0], last / np.linalg.norm(last), atol=1e-5)


def test_an_end_token_survives_a_cut() -> None:
    class Tokenizer:
        eos_token_id = 9

        def __call__(self, texts: Any, truncation: bool, max_length: int) -> dict[str, Any]:
            return {"input_ids": [[int(c) for c in t][:max_length] for t in texts]}

    rows = Pooling("last").ids(Tokenizer(), ["1234567", "12", "129"], 4)
    assert rows == [[1, 2, 3, 9], [1, 2, 9], [1, 2, 9]]
    assert Pooling("mean").ids(Tokenizer(), ["12345"], 4) == [[1, 2, 3, 4]]
