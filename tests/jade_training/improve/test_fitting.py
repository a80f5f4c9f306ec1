"""What suits the size of a model: a learning run's settings, what holds rare roles, what rollouts are served from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jade_graph.assembly import usual_concurrency
from jade_graph.backbones import weights
from jade_graph.backbones.codec import Codec
from jade_graph.backbones.folders import count_parameters
from jade_graph.microworld.shown import Shown
from jade_graph.types import Message
from jade_training.compare.arms import suites
from jade_training.improve import settings as module
from jade_training.improve.holding import HELD, replay_of
from jade_training.improve.settings import ImproveSettings, fitted
from jade_training.learner.adapters import served, trainable
from jade_training.learner.ppo import Lora
from jade_training.supervised.sft import learning_rate_for

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_small_model_keeps_its_settings(folder: Path) -> None:
    usual = ImproveSettings()
    assert fitted(usual, folder) == usual
    assert "limits" not in usual.as_dict()
    assert fitted(usual, folder, limits={"rounds": 3}).as_dict()["limits"] == {"rounds": 3}


def test_a_large_one_has_fewer_runs_more_time_and_a_lower_rate_unless_told(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LARGE", 100)
    found = fitted(ImproveSettings(), folder, lora=4)
    size = count_parameters(folder)
    assert (found.concurrency, found.limits) == (8, {"deadline_s": 600.0})
    assert found.ppo.lora == Lora(4, 8)
    assert found.ppo.learning_rate == pytest.approx(learning_rate_for(size, lora=True) / 4)
    assert (found.ppo.minibatches, found.ppo.by_question) == (2, True)
    kept = fitted(ImproveSettings(), folder, kept=["minibatches", "clip"])
    assert (kept.ppo.minibatches, kept.ppo.by_question) == (ImproveSettings().ppo.minibatches, True)
    told = fitted(ImproveSettings(), folder, limits={"deadline_s": 5.0}, concurrency=2, learning_rate=1e-9)
    assert (told.concurrency, told.limits, told.ppo.learning_rate) == (2, {"deadline_s": 5.0}, 1e-9)


def test_runs_at_once_by_the_model() -> None:
    class Stand:
        def __init__(self, size: int | None) -> None:
            self.model = None if size is None else torch.nn.ParameterList([torch.empty(size, device="meta")])

    class Here(Stand):
        def __init__(self, size: int) -> None:
            self.model = torch.nn.ParameterList([torch.empty(1).expand(size)])

    assert usual_concurrency(Stand(None)) == 64  # type: ignore[arg-type]
    assert usual_concurrency(Stand(30_000_000)) == 64  # type: ignore[arg-type]
    assert usual_concurrency(Here(1000)) == 64  # type: ignore[arg-type]
    assert usual_concurrency(Here(30_000_000)) == 8  # type: ignore[arg-type]


def test_demonstrations_hold_the_roles_that_are_not_scored(folder: Path) -> None:
    def shown(role: str, i: int) -> Shown:
        return Shown(f"q{i}", role, (Message("user", f"{role} {i}"),), f"<x>{i}</x>")

    everything = [shown(role, i) for role in ("AG", "DS", "PL", *HELD) for i in range(30)]
    codec = Codec.from_folder(folder, profile="brief")
    pairs = replay_of(everything, codec, count=40)
    assert len(pairs) == 40
    prompts = [codec.tokenizer.decode(prompt) for prompt, _ in pairs]
    assert {text.split()[0] for text in prompts} == set(HELD)
    assert all(action[-1] == codec.eos_token_id for _, action in pairs)
    assert replay_of(everything, codec, count=40) == pairs != replay_of(everything, codec, count=40, seed=1)
    assert len(replay_of([shown("AS", 0)], codec)) == 1


def load(folder: Path) -> Any:
    return weights.load_model(folder, torch.device("cpu"), torch.float32)


def test_rollouts_are_served_from_a_copy_with_the_adapters_merged(folder: Path, monkeypatch: Any) -> None:
    whole = trainable(load(folder), None)
    assert served(whole) is whole
    monkeypatch.setattr(weights, "choose_dtype", lambda *_: torch.bfloat16)
    low = served(whole)
    assert next(low.parameters()).dtype == torch.bfloat16
    assert next(whole.parameters()).dtype == torch.float32
    monkeypatch.undo()
    adapted = trainable(load(folder), Lora(2, 4))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    merged = served(adapted)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    assert any("lora_" in name and weight.requires_grad for name, weight in adapted.named_parameters())
    assert not any(weight.requires_grad for weight in merged.parameters())


def test_the_suite_of_real_questions_learns_adapters_on_what_the_recipe_left() -> None:
    real = suites()["real"]
    assert (real.start, real.lora) == ("smol", 16)
    assert real.data == ("smol/data/train", "smol/data/dev", "smol/data/test")
    assert {"vanilla-rag", "mmoa-rag", "start", "decoupled", "joint"} <= set(real.arms)
    assert not real.arms["vanilla-rag"].learns
    ImproveSettings(**real.settings)
