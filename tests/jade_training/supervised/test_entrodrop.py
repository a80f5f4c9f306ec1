"""EntroDrop: what is hidden, when, and that nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jade_graph.errors import ConfigError, UsageError
from jade_training.supervised.batches import collate
from jade_training.supervised.entrodrop import Dropping, Eligible, EntroDrop, eligible, entropies
from jade_training.supervised.sft import sft

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLES = [([5 + i, 6, 7] + [8] * (i % 3), [20 + i, 21, 30, 31, 40 + i, 3][: 4 + i % 3]) for i in range(24)]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


# --- settings ---------------------------------------------------------------------------------------------------------
def test_a_text_is_settings():
    assert EntroDrop.parse("") == EntroDrop()
    assert EntroDrop.parse(" gmax=.4, q=.25,of=high ,apply=both") == EntroDrop(
        gmax=0.4, q=0.25, of="high", apply="both"
    )


@pytest.mark.parametrize(
    "text", ["gmax", "gmax=x", "gmx=.3", "gmax=1.5", "q=-1", "k=0", "k=nan", "apply=all", "of=mid"]
)
def test_what_is_no_setting_is_told(text):
    with pytest.raises(UsageError) as error:
        EntroDrop.parse(text)
    assert error.value.error_code == "BAD_ENTRODROP"


def test_the_strength_rises_as_a_sigmoid():
    settings = EntroDrop(gmax=0.3, k=10, s0=0.3)
    assert settings.gamma(0, 100) == pytest.approx(0.3 / (1 + math.exp(3)))
    assert settings.gamma(30, 100) == pytest.approx(0.15)
    assert settings.gamma(100, 100) == pytest.approx(0.3 / (1 + math.exp(-7)))
    rising = [settings.gamma(s, 100) for s in range(101)]
    assert rising == sorted(rising)


# --- which tokens -----------------------------------------------------------------------------------------------------
def test_entropies_are_those_of_the_start_and_are_kept_by_content(folder, tmp_path):
    model = load(folder)
    found = entropies(model, EXAMPLES, name="w@1", cache=tmp_path)
    prompt, action = EXAMPLES[4]
    with torch.no_grad():
        log = model(torch.tensor([[*prompt, *action]])).logits[0].log_softmax(-1)
    for t in range(len(action)):
        at = log[len(prompt) + t - 1]
        assert float(found[4][t]) == pytest.approx(float(-(at.exp() * at).sum()), rel=1e-5)
    assert len(list(tmp_path.iterdir())) == 1
    again = entropies(model, EXAMPLES, name="w@1", cache=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    entropies(model, EXAMPLES, name="w@2", cache=tmp_path)
    entropies(model, EXAMPLES[1:], name="w@1", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_only_predictable_tokens_that_are_not_special_are_eligible():
    examples = [([1, 2], [10, 11, 3]), ([1], [12, 13, 3])]
    found = [torch.tensor([0.1, 2.0, 0.0]), torch.tensor([0.2, 3.0, 0.05])]
    low = eligible(EntroDrop(q=0.5), found, examples, frozenset({3}))
    assert low.rows == ((True, False, False), (False, False, False))
    assert eligible(EntroDrop(q=0.6), found, examples, frozenset({3})).rows == (
        (True, False, False),
        (True, False, False),
    )
    # Controls hide as many.
    high = eligible(EntroDrop(q=0.6, of="high"), found, examples, frozenset({3}))
    assert high.rows == ((False, True, False), (False, True, False))
    every = eligible(EntroDrop(q=0.6, of="all"), found, examples, frozenset({3}))
    assert every.rows == ((True, True, False), (True, True, False))
    assert every.scale * sum(map(sum, every.rows)) == pytest.approx(2)


def batch(which, examples=EXAMPLES):
    table = Dropping(EntroDrop(), which, 0).columns(examples)
    return collate([
        {"input_ids": [*p, *a], "labels": [-100] * len(p) + list(a), "droppable": table["droppable"][i], "place": i}
        for i, (p, a) in enumerate(examples)
    ])  # fmt: skip


def half(examples=EXAMPLES):
    return Eligible(tuple(tuple(j % 2 == 0 and j < len(a) - 1 for j in range(len(a))) for _, a in examples), 0.0)


def test_nothing_outside_the_eligible_is_hidden_and_the_share_is_as_expected():
    dropping = Dropping(EntroDrop(gmax=0.6), half(), seed=1)
    inputs = batch(half())
    seen = torch.zeros_like(inputs["droppable"])
    for step in range(200):
        masks = dropping.masks(inputs, step, 200)
        assert not bool((masks & ~inputs["droppable"].bool()).any())
        seen += masks
    assert bool((seen.bool() == inputs["droppable"].bool()).all())  # each is met
    figures = dropping.figures()
    p, n = figures["hidden_expected"], dropping.possible
    assert abs(figures["hidden"] - p) <= 3 * math.sqrt(p * (1 - p) / n)


def test_what_is_hidden_does_not_depend_on_the_micro_batch():
    whole = Dropping(EntroDrop(gmax=0.9), half(), seed=1)
    inputs = batch(half())
    together = whole.masks(inputs, 50, 60)
    for i in range(len(EXAMPLES)):
        row = {name: value[i : i + 1] for name, value in inputs.items()}
        length = int(row["attention_mask"].sum())
        alone = {n: v[:, -length:] if v.ndim > 1 else v for n, v in row.items()}
        assert torch.equal(Dropping(EntroDrop(gmax=0.9), half(), seed=1).masks(alone, 50, 60)[0], together[i, -length:])
    assert not torch.equal(together, whole.masks(inputs, 51, 60))


@pytest.mark.parametrize(("apply", "mask"), [("input", "zero"), ("loss", "zero"), ("both", "random")])
def test_what_the_model_sees(folder, apply, mask):
    model, inputs = load(folder), batch(half())
    dropping = Dropping(EntroDrop(gmax=1.0, s0=0.0, k=50, apply=apply, mask=mask), half(), seed=0)
    hidden = Dropping(EntroDrop(gmax=1.0, s0=0.0, k=50, apply=apply, mask=mask), half(), seed=0).masks(inputs, 9, 9)
    assert bool(hidden.any())
    given = dropping.apply(model, dict(inputs), 9, 9)
    assert {"droppable", "place"}.isdisjoint(given)
    learned = given["labels"].ne(-100)
    assert torch.equal(learned, inputs["labels"].ne(-100) & (~hidden if apply != "input" else torch.ones_like(hidden)))
    if apply == "loss":
        assert torch.equal(given["input_ids"], inputs["input_ids"])
    elif mask == "zero":
        plain = model.get_input_embeddings()(inputs["input_ids"])
        assert torch.equal(given["inputs_embeds"][~hidden], plain[~hidden])
        assert float(given["inputs_embeds"].detach()[hidden].abs().sum()) == 0.0
    else:
        assert torch.equal(given["input_ids"][~hidden], inputs["input_ids"][~hidden])
        assert not torch.equal(given["input_ids"], inputs["input_ids"])


# --- training ---------------------------------------------------------------------------------------------------------
def trained(folder, **options):
    model = load(folder)
    result = sft(
        model, EXAMPLES, tokenizer=AutoTokenizer.from_pretrained(folder), steps=12, batch_rows=12, learning_rate=3e-3,
        seed=2, device="cpu", **options,
    )  # fmt: skip
    return weights(model), result


def test_a_strength_of_nothing_is_plain_training_bit_for_bit(folder):
    plain, _ = trained(folder)
    none, told = trained(folder, entrodrop=EntroDrop(gmax=0.0))
    assert all(torch.equal(a, b) for a, b in zip(plain, none, strict=True))
    assert told["hidden"] == 0.0
    some, told = trained(folder, entrodrop=EntroDrop(gmax=0.9))
    assert not all(torch.equal(a, b) for a, b in zip(plain, some, strict=True))
    assert told["hidden"] > 0.0


def test_micro_batches_change_nothing(folder):
    one, _ = trained(folder, entrodrop=EntroDrop(gmax=0.9))
    many, _ = trained(folder, entrodrop=EntroDrop(gmax=0.9), micro_rows=3)
    assert all(torch.allclose(a, b, atol=3e-5) for a, b in zip(one, many, strict=True))


def test_a_run_that_is_taken_up_hides_the_same(folder, tmp_path):
    from jade_training.supervised import sft as module

    options = {"steps": 8, "batch_rows": 12, "learning_rate": 3e-3, "seed": 2, "device": "cpu", "save_every": 2}
    dropping = EntroDrop(gmax=0.9)
    sft(folder, EXAMPLES, tmp_path / "whole", entrodrop=dropping, **options)

    class CutError(Exception):
        pass

    def cut(done, of):
        if done == 5:
            raise CutError

    with pytest.raises(CutError):
        sft(folder, EXAMPLES, tmp_path / "cut", entrodrop=dropping, progress=cut, **options)
    with pytest.raises(ConfigError, match="SFT_CHANGED"):
        sft(folder, EXAMPLES, tmp_path / "cut", entrodrop=EntroDrop(gmax=0.8), **options)
    assert (tmp_path / "cut" / module.CHECKPOINT).is_dir()
    sft(folder, EXAMPLES, tmp_path / "cut", entrodrop=dropping, **options)
    ends = [weights(load(tmp_path / name)) for name in ("whole", "cut")]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
