"""The recipe of `smol` on a small stand-in: parts apart, a run that was cut off, and what ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones.lora import merge
from jade_graph.data import load_dataset
from jade_graph.errors import DataError
from jade_graph.testing.models import make_random_model
from jade_training.real import questions, recipe
from jade_training.supervised import files

pytestmark = pytest.mark.usefixtures("one_thread")


def written(folder: Path, name: str, count: int) -> None:
    folder.mkdir(parents=True)
    passages, asked = [], []
    for i in range(count):
        book, writer = f"{name} {i}", f"Writer {name} {i}"
        passages += [
            {"id": f"{name}{i}", "title": book, "text": f"{book} is a novel by {writer}."},
            {"id": f"{name}{i}w", "title": writer, "text": f"{writer} was born in 19{i:02}."},
        ]
        steps = [
            {"question": f"{book} >> author", "answer": writer, "supporting": [f"{name}{i}"]},
            {"question": "When was #1 born?", "answer": f"19{i:02}", "supporting": [f"{name}{i}w"]},
        ]
        asked.append(
            {"id": f"q{i}", "question": f"When was the writer of {book} born?", "answers": [f"19{i:02}"], "hops": 2,
             "supporting": [f"{name}{i}", f"{name}{i}w"], "decomposition": steps}
        )  # fmt: skip
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, passages)))
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, source in questions.SOURCES.items():
        written(tmp_path / "data" / source.folder, name, 20)
    return tmp_path / "data"


def test_parts_share_no_fact_and_hotpot_is_not_learned_from(data: Path, tmp_path: Path) -> None:
    parts = questions.prepare(data, tmp_path / "parts")
    counts = questions.counted(parts)
    assert "hotpot" not in counts["train"]
    assert {"musique", "2wiki", "hotpot", "single-hop"} <= set(counts["test"])
    facts = {
        name: {id for q in part.questions for id in q.supporting} | {a for q in part.questions for a in q.answers}
        for name, part in parts.items()
    }
    golds = {id for q in (*parts["test"].questions, *parts["dev"].questions) for id in q.supporting}
    assert golds.isdisjoint(facts["train"])
    assert golds.isdisjoint(p.id for p in parts["train"].passages)
    again = questions.prepare(data / "not there any more", tmp_path / "parts")
    assert {n: p.dataset_id for n, p in again.items()} == {n: p.dataset_id for n, p in parts.items()}
    assert parts["test"].name == "real-test"


def test_a_data_set_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        questions.prepare(tmp_path, tmp_path / "parts")
    assert caught.value.error_code == "REAL_DATA"
    assert "2wiki_train500" in caught.value.known


def test_a_recipe_that_was_cut_off_comes_to_the_same_adapter(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    base = make_random_model(tmp_path / "base", width=16, heads=2)
    monkeypatch.setattr(recipe, "require_added", lambda name, models: base)
    small = recipe.Recipe(
        most={"AG": 12, "DS": 4, "PL": 10}, ks=(2,), rank=2, batch_rows=6, micro_tokens=2048, held_out=0.2
    )
    whole = recipe.make(data, tmp_path / "whole", tmp_path, small, tell=lambda *_: None)
    assert set(whole["demonstrations"]) >= {"AG", "PL", "QDS", "AS"}
    assert whole["demonstrations"]["AG"] == 12

    def cut(what: str, done: int, of: int) -> None:
        if what == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.make(data, tmp_path / "cut", tmp_path, small, tell=cut)
    recipe.make(data, tmp_path / "cut", tmp_path, small, tell=lambda *_: None)
    one, two = ((tmp_path / out / "adapter" / "adapter_model.safetensors").read_bytes() for out in ("whole", "cut"))
    assert one == two

    recipe.install(tmp_path / "whole", tmp_path / "ships", "# card\n")
    assert {"README.md", "figures.json", "jade.json"} <= {path.name for path in (tmp_path / "ships").iterdir()}
    assert json.loads((tmp_path / "ships" / "adapter_config.json").read_text())["base_model_name_or_path"] == "smollm2"
    merge(tmp_path / "ships", base, tmp_path / "merged")
    assert str(tmp_path) not in (tmp_path / "ships" / "figures.json").read_text()


def test_real_data_splits_as_the_card_says(shared_data: Path, tmp_path: Path) -> None:
    parts = questions.prepare(shared_data, tmp_path / "parts")
    counts = questions.counted(parts)
    told = json.loads((recipe.ASSET / recipe.FIGURES).read_text())["questions"]
    assert counts == told
    shown, _ = files.read(_demonstrated(parts["train"], tmp_path))
    assert all(shown)
    titles = {p.title for p in load_dataset(tmp_path / "parts" / "train").passages}
    golds = {id for q in parts["test"].questions for id in q.supporting}
    left = {p.title for p in parts["test"].passages if p.id in golds} - titles
    text = "\n".join(m.content for s in shown for m in s.messages)
    assert len(left) > 100
    assert not [title for title in left if f"\n{title}: " in text]


def _demonstrated(train: Any, tmp_path: Path) -> Path:
    recipe.demonstrate(train, tmp_path / "d.jsonl", recipe.Recipe(ks=(3,)), lambda *_: None)
    return tmp_path / "d.jsonl"
