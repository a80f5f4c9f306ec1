"""`jade improve --merge`: the last weights merged at each evaluation, beside training, which never sees the merge."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from jade_graph.backbones import TINY
from jade_graph.errors import UsageError
from jade_graph.registry.candidates import resolve
from jade_training.improve.improver import Improver
from jade_training.improve.settings import ImproveSettings
from jade_training.learner.adapters import trainable
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.merging.curves import Window, coefficients
from jade_training.merging.window import merged, needed

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ImproveSettings(
    iterations=3, questions=3, runs_per_question=2, evaluate_every=1, merge="linear:3",
    ppo=PPOConfig(estimator="rloo", minibatches=2, learning_rate=3e-3),
)  # fmt: skip


def _states(model: Any, n: int) -> list[dict[str, torch.Tensor]]:
    names = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [{name: torch.randn_like(p) * 0.1 for name, p in names} for _ in range(n)]


def test_all_weights_are_merged_in_a_copy(folder):
    model = trainable(AutoModelForCausalLM.from_pretrained(str(folder)), None)
    before = {n: p.clone() for n, p in model.named_parameters()}
    states, weigh = _states(model, 3), [0.2, 0.3, 0.5]
    found = dict(merged(model, states, weigh).named_parameters())
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, before[name])
        wanted = sum(c * s[name] for c, s in zip(weigh, states, strict=True))
        torch.testing.assert_close(found[name], wanted)


def test_adapters_are_merged_as_what_they_change(folder):
    model = trainable(AutoModelForCausalLM.from_pretrained(str(folder)), Lora(3, 6))
    states, weigh, ids = _states(model, 3), [0.2, 0.3, 0.5], torch.tensor([[5, 9, 11]])
    found = merged(model, states, weigh)
    assert not hasattr(found, "peft_config")
    singles = []
    before = {n: p.clone() for n, p in model.named_parameters()}
    merged(model, states, weigh)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())  # training goes on from its own
    for state in states:
        dict_of = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in state.items():
                dict_of[name].copy_(tensor)
        singles.append(dict(merged(model, [state], [1.0]).named_parameters()))
        # One alone is the model with this adapter.
        torch.testing.assert_close(merged(model, [state], [1.0])(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)
    for name, tensor in found.named_parameters():
        wanted = sum(c * s[name] for c, s in zip(weigh, singles, strict=True))
        torch.testing.assert_close(tensor, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("done", "kept"), [(0, []), (1, [0]), (2, [0, 1]), (5, [3, 4])])
def test_the_weights_that_the_next_merge_reads_are_kept(done, kept):
    assert list(needed(Window("linear", 3), done)) == kept
    assert list(needed(None, done)) == []


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory) -> Any:
    """Every checkpoint is kept."""
    return asyncio.run(Improver(tmp_path_factory.mktemp("merging") / "run", TINY, *sets, SMALL, keep=9).run())


def test_the_better_of_merge_and_last_weights_counts(run):
    assert "merged" not in run.evaluations[0]
    assert "merged" not in run.evaluations[1]  # one checkpoint alone is no window
    for at in (2, 3):
        e = run.evaluations[at]
        assert e["score"] >= e["beside"]
        states = [
            load_file(run.folder / f"iterations/{i:03d}/checkpoint/policy.safetensors")
            for i in range(max(0, at - 3), at)
        ]
        weigh = coefficients([1.0 - i / len(states) for i in range(1, len(states))])
        wanted = states[-1]
        if e["merged"]:
            wanted = {n: sum(c * s[n] for c, s in zip(weigh, states, strict=True)) for n in states[0]}
        found = load_file(run.folder / f"models/{at:03d}/model.safetensors")
        name = "model.norm.weight"
        torch.testing.assert_close(found[name].float(), wanted[f"policy.{name}"].float())
        assert (run.folder / f"evaluations/{at:03d}.jsonl").is_file()
        source = resolve(run.folder / "models" / f"{at:03d}")
        assert source.facts["weights"] == ("merged linear:3" if e["merged"] else None)


def test_a_run_that_is_taken_up_again_merges_the_same(sets, tmp_path, cut_off):
    """Cut off with the runs of its last iteration recorded and its update not: from there, two ways on are one."""

    short = replace(SMALL, iterations=2)
    with cut_off(1):
        asyncio.run(Improver(tmp_path / "one" / "run", TINY, *sets, short).run())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    ends = [asyncio.run(Improver(tmp_path / way / "run", TINY, *sets, short).run()) for way in ("one", "two")]
    models = [load_file(end.folder / "models/002/model.safetensors") for end in ends]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert ends[0].evaluations[2].get("merged") == ends[1].evaluations[2].get("merged")
    assert "beside" in ends[0].evaluations[2]
    # Weights alone are kept of what is merged, and all of what is gone on from.
    kept = {p.parent.name: {f.name for f in p.iterdir()} for p in ends[0].folder.glob("iterations/*/checkpoint")}
    assert kept["000"] == {"policy.safetensors"}
    assert "optimizer.safetensors" in kept["001"]


def test_a_merge_that_is_none_is_refused_before_anything_runs():
    for text, code in (("1-sqrt", "BAD_MERGE"), ("steep:4", "UNKNOWN_DECAY")):
        with pytest.raises(UsageError) as error:
            replace(SMALL, merge=text)
        assert error.value.error_code == code


def test_settings_without_a_merge_are_told_as_before():
    assert "merge" not in replace(SMALL, merge=None).as_dict()
    assert SMALL.as_dict()["merge"] == "linear:3"
    assert ImproveSettings(**SMALL.as_dict()) == SMALL
