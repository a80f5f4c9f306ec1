"""The warm start: what it learns from, what it learns, and what it leaves alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jade_graph.backbones.lora import WEIGHTS
from jade_graph.errors import ConfigError, DataError
from jade_graph.testing.runs import Act, make_run
from jade_training.learner import trl_
from jade_training.learner.ppo import Lora
from jade_training.merging.kept import kept_models
from jade_training.merging.parents import parents_of
from jade_training.pretrain.tokenizer import build_tokenizer
from jade_training.supervised.demonstrations import Demonstrator
from jade_training.supervised.sft import demonstrations, encoded, examples_of, sft

EXAMPLES = [([5 + i, 6, 7] + [8] * (i % 3), [20 + i, 21, 1][: 2 + i % 2]) for i in range(12)]


pytestmark = pytest.mark.usefixtures("one_thread")


def nll(model, prompt, action):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *action]])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(action), reduction="sum").item()


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_it_learns_the_actions_and_saves_a_model_with_its_tokenizer(folder, tmp_path):
    assert trl_._Supervised.__module__.startswith("trl.")
    result = sft(folder, EXAMPLES, tmp_path / "out", steps=60, batch_rows=12, learning_rate=1e-2, device="cpu")
    before, after = load(folder), load(tmp_path / "out")
    assert result["steps"] == 60
    assert sum(nll(after, *e) for e in EXAMPLES) < 0.2 * sum(nll(before, *e) for e in EXAMPLES)
    tokenizers = [AutoTokenizer.from_pretrained(f) for f in (folder, tmp_path / "out")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


def test_the_loss_is_that_of_action_tokens_alone_whatever_the_micro_batches(folder):
    model = load(folder)
    wanted = sum(nll(model, *e) for e in EXAMPLES) / sum(len(a) for _, a in EXAMPLES)
    found = {}
    for micro in (12, 4, 1):
        trained = load(folder)
        result = sft(trained, EXAMPLES, steps=1, batch_rows=12, micro_rows=micro, learning_rate=1e-3, device="cpu",
                     tokenizer=AutoTokenizer.from_pretrained(folder))  # fmt: skip
        assert result["loss"] == pytest.approx(wanted, rel=1e-4)
        found[micro] = trained.lm_head.weight.detach().clone()
    assert torch.allclose(found[12], found[1], atol=2e-5)
    assert torch.allclose(found[12], found[4], atol=2e-5)


def test_the_same_seed_gives_the_same_weights_and_the_model_is_as_it_was_otherwise(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    one, two = load(folder), load(folder)
    for model in (one, two):
        cache = model.config.use_cache
        sft(model, EXAMPLES, tokenizer=tokenizer, epochs=1, batch_rows=4, seed=3, device="cpu")
        assert model.config.use_cache == cache
        assert not model.training
        assert "forward" not in vars(model)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_examples_of_good_runs():
    good = [
        Act("PL", (1, 2), (3, 4), (-1.0, -1.0)),
        Act("QR", (1, 2), (5,), (-1.0,), fields={"valid": False, "violation": "EMPTY"}),
        Act("AG", (1, 3), (6,), (-1.0,), fields={"truncated": True}),
        Act("AS", (1, 4), (7,), (-1.0,)),
    ]
    made = [make_run("a", good, 0.9), make_run("b", good, 0.9), make_run("c", [Act("AG", (9,), (9,), (-1.0,))], 0.2),
            make_run("d", [Act("AG", (8,), (8,), (-1.0,))], None)]  # fmt: skip
    runs, scored = [r for r, _ in made], {s.run_id: s for _, s in made}
    assert examples_of(runs, scored, 0.5) == [((1, 2), (3, 4)), ((1, 4), (7,))]
    assert examples_of(runs, scored, 0.5, roles=frozenset({"AS"})) == [((1, 4), (7,))]
    assert len(examples_of(runs, scored, 0.1)) == 3


def test_demonstrations_are_what_the_engine_gives_and_the_model_emits():
    tokenizer = build_tokenizer()
    shown = [Demonstrator(1).short("QR") for _ in range(3)]
    for demonstration, (prompt, action) in zip(shown, encoded(tokenizer, shown), strict=True):
        assert prompt == tokenizer(demonstration.prompt, add_special_tokens=False)["input_ids"]
        assert action[-1] == tokenizer.eos_token_id
        assert action[:-1] == tokenizer(demonstration.action, add_special_tokens=False)["input_ids"]
    found = demonstrations(tokenizer, 20, seed=4)
    assert len(found) >= 20
    assert found == demonstrations(tokenizer, 20, seed=4)
    assert found != demonstrations(tokenizer, 20, seed=5)


@pytest.mark.parametrize("examples", [[], [((1,), ())], [((), (1,))]])
def test_no_examples_is_an_error(folder, examples):
    with pytest.raises(DataError) as caught:
        sft(folder, examples)
    assert caught.value.error_code == "SFT_EMPTY"


# --- a run that was cut off -------------------------------------------------------------------------------------------
class CutError(Exception):
    pass


@pytest.mark.parametrize("rank", [None, 2], ids=["weights", "adapters"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(folder, tmp_path, rank):
    options = {
        "steps": 6, "micro_tokens": 24, "batch_rows": 4, "learning_rate": 1e-2, "warmup_steps": 1, "save_every": 2,
        "lora": None if rank is None else Lora(rank, 2 * rank), "device": "cpu",
    }  # fmt: skip
    seen, figures = [], {}

    def cut(done, of):
        seen.append(done)
        if done == 5:
            raise CutError

    whole = sft(folder, EXAMPLES, tmp_path / "whole", log=lambda f, step: figures.setdefault(step, f), **options)
    assert sorted(figures)[:6] == [1, 2, 3, 4, 5, 6]
    assert figures[1]["loss"] > figures[6]["loss"]
    with pytest.raises(CutError):
        sft(folder, EXAMPLES, tmp_path / "cut", progress=cut, **options)
    with pytest.raises(ConfigError, match="SFT_CHANGED"):
        sft(folder, EXAMPLES, tmp_path / "cut", **{**options, "learning_rate": 1e-3})
    again = sft(folder, EXAMPLES, tmp_path / "cut", progress=lambda done, of: seen.append(done), **options)
    assert seen == [1, 2, 3, 4, 5, 5, 6]
    assert again["steps"] == whole["steps"] == 6
    one, two = load(tmp_path / "whole").state_dict(), load(tmp_path / "cut").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "cut" / "checkpoint").exists()


@pytest.mark.parametrize("rank", [None, 2], ids=["weights", "adapters"])
def test_models_on_the_way_are_kept_and_merged(folder, tmp_path, rank):
    options = {
        "steps": 7, "batch_rows": 4, "learning_rate": 1e-2, "warmup_steps": 1, "save_every": 2, "device": "cpu",
        "lora": None if rank is None else Lora(rank, 2 * rank), "schedule": "constant", "profile": "brief",
    }  # fmt: skip
    out, rates = tmp_path / "out", {}
    sft(folder, EXAMPLES, out, keep=3, log=lambda f, step: rates.setdefault(step, f.get("learning_rate")), **options)
    assert {rates[step] for step in range(3, 8)} == {1e-2}
    assert [path.name for path in kept_models(out)] == ["4", "6", "7"]
    assert not list((out / "models").glob(".*"))
    sft(folder, EXAMPLES, tmp_path / "six", **{**options, "steps": 6})
    parents = parents_of(None, [str(out)], 2)
    assert [parent.name for parent in parents] == [str(out / "models" / step) for step in ("6", "7")]
    for parent, twin in zip(parents, (tmp_path / "six", out), strict=True):
        assert json.loads((Path(parent.name) / "jade.json").read_text("utf-8"))["profile"] == "brief"
        if rank is None:
            one, two = load(parent.folder).state_dict(), load(twin).state_dict()
        else:
            one, two = load_file(parent.adapter / WEIGHTS), load_file(twin / "adapter" / WEIGHTS)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_groups_of_like_length_hold_little_padding(folder, tmp_path):
    result = sft(folder, EXAMPLES, steps=1, micro_tokens=24, device="cpu")
    assert 0.0 <= result["padding"] < 0.2
