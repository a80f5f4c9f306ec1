"""The stage that teaches searching roles: the old tokenizer is kept, rows are seeded, and a model comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jade_graph.backbones.folders import BUNDLED
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.shown import demonstrations
from jade_graph.microworld.world import Difficulty
from jade_training.pretrain.ask_stage import AskSettings, extend, relative, teach
from jade_training.pretrain.asking import AskCurriculum
from jade_training.pretrain.tokenizer import asking_tokens, build_tokenizer, known_tokens
from jade_training.supervised.demonstrations import Demonstrator


@pytest.fixture(scope="module")
def new() -> Any:
    return build_tokenizer(asking=True)


def test_old_tokens_keep_their_ids_and_old_prompts_are_encoded_alike(new: Any) -> None:
    old = build_tokenizer()
    assert new.convert_ids_to_tokens(range(len(old))) == known_tokens()
    assert new.convert_ids_to_tokens(range(len(old), len(new))) == asking_tokens()
    demonstrator = Demonstrator(5)
    shown = [d for _ in range(6) for d in demonstrator.reading(4, 6)] + [demonstrator.short() for _ in range(60)]
    for d in shown:
        text = d.documents + d.prompt + d.action
        assert new.encode(text, add_special_tokens=False) == old.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("preset", ["m-ask", "search-r1"])
def test_searching_roles_have_no_unknown_token_and_actions_come_back(new: Any, preset: str) -> None:
    world = make_world("validation", 5, Difficulty(scale=0.1))
    shown = demonstrations(world, make_questions(world, 28, seed=5), preset=preset, straying=0.3)
    for s in shown:
        assert new.unk_token_id not in new.encode(s.messages[0].content, add_special_tokens=False)
        assert new.decode(new.encode(s.action, add_special_tokens=False)) == s.action
    for text in ("<think>search next</think><search>Silent Storm director</search>", "<add>t9</add>", "<end>"):
        assert new.decode(new.encode(text, add_special_tokens=False)) == text


def test_a_longer_vocabulary_changes_nothing_that_the_model_made_of_old_tokens(new: Any) -> None:
    old = AutoTokenizer.from_pretrained(BUNDLED["tiny"])
    model = AutoModelForCausalLM.from_pretrained(BUNDLED["tiny"], dtype=torch.float32).eval()
    ids = torch.tensor([old.encode("answer : Who directed Silent Storm?\n")])
    with torch.no_grad():
        before, table = model(ids).logits, model.get_input_embeddings().weight.clone()
        extend(model, old, new)
        after = model(ids).logits
    assert after.shape[-1] == len(new)
    assert torch.equal(after[..., : len(old)], before)
    rows = model.get_input_embeddings().weight
    assert torch.equal(rows[: len(old)], table)
    like = torch.nn.functional.cosine_similarity(
        rows[new.convert_tokens_to_ids("<search>")], rows[new.convert_tokens_to_ids("<query>")], dim=0
    )
    far = torch.nn.functional.cosine_similarity(
        rows[new.convert_tokens_to_ids("<search>")], rows[new.convert_tokens_to_ids("Who")], dim=0
    )
    assert like > far + 0.2
    assert model.lm_head.weight.data_ptr() == rows.data_ptr()


def test_relatives_are_old_tags() -> None:
    known = set(known_tokens())
    assert all(relative(t) in known for t in asking_tokens() if t.startswith("<"))
    assert relative("</a2>") == "</q2>"
    assert relative("t2") is None


def test_rows_depend_on_the_step_alone(new: Any) -> None:
    def rows(order: list[int]) -> dict[int, Any]:
        curriculum = AskCurriculum(new, 3, 10, asked=14, reads=2, replayed=1, steps_per_world=2)
        return {step: curriculum.rows_of(step) for step in order}

    one, other = rows([0, 1, 2]), rows([2, 0, 1])
    assert one == other
    longest = max(row.length for step in one.values() for row in step if len(row.parts) == 1)
    assert longest < 512
    shared = [row for row in one[0] if row.prefix]
    assert any(len(row.parts) > 3 for row in shared)
    assert any(at >= 0 for row in shared for seen in row.seen for at in seen)  # evidence is read off the documents


@pytest.mark.slow
def test_a_step_makes_a_model_that_says_what_it_was_taught(tmp_path: Path) -> None:
    told = teach(tmp_path / "model", AskSettings(steps=1, asked=14))
    assert told["steps"] == 1
    assert told["start"].startswith("jade-tiny-hasty@")
    about = json.loads((tmp_path / "model" / "jade.json").read_text("utf-8"))
    assert about["name"] == "jade-tiny-ask"
    assert {"PL", "KP", "SR"} <= set(about["roles"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "model"))


@pytest.mark.slow
def test_the_same_settings_make_the_same_bits(tmp_path: Path, one_thread: None) -> None:
    made = []
    for name in ("one", "other"):
        teach(tmp_path / name, AskSettings(steps=3, asked=14))
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1]
