"""Rows laid out as trees: every token sees its own row and no other, and gradients are those of the rows one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from jade_graph.testing.runs import Act, make_run
from jade_training.learner.adapters import trainable
from jade_training.learner.logits import Reader, distribution, pack
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.learner.rows import rows_of
from jade_training.learner.trainer import PPOTrainer
from jade_training.learner.trees import SHORTEST, families, lay_out, length

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # peft asks by an old name
]

STEMS = [[7] * 40, [8] * 60, [7] * 30 + [9] * 30]
PAIRS = st.lists(
    st.builds(
        lambda stem, size, end, action: ([*STEMS[stem][:size], *end], action),
        st.integers(0, 2),
        st.integers(1, 60),
        st.lists(st.integers(1, 3), max_size=4),
        st.lists(st.integers(1, 3), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=12,
)
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def model_of(kind: str = "llama") -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        if kind == "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)).float().eval()
        return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).float().eval()


def awake(model: Any) -> Any:
    """The adapters have learned something."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def alike() -> list[tuple[list[int], list[int]]]:
    """Nested beginnings, a prompt that is another's beginning, actions that part at once, rows that are equal."""
    one = [k % 90 + 3 for k in range(0, 120, 2)]
    other = [k % 90 + 3 for k in range(1, 90, 3)]
    return [
        (one, [5, 6, 7]),
        (one, [9, 6]),
        (one, [5, 6, 8, 4]),
        ([*one[:45], 50, 51], [3, 3]),
        ([*one[:45], 50, 51], [3, 3]),
        (one[:30], [4, 4, 4]),
        (other, [11]),
        ([*other, 12, 13], [14, 2]),
        ([70, 71], [72, 73]),
    ]


@given(PAIRS, st.integers(1, 200))
def test_an_action_token_is_predicted_from_its_own_row(pairs: list[tuple[list[int], list[int]]], longest: int) -> None:
    grouped = families(pairs, longest)
    assert sorted(i for family in grouped for i in family) == list(range(len(pairs)))
    for family in grouped:
        members = [pairs[i] for i in family]
        assert length(members) <= longest or len(family) == 1
        assert length(members) <= sum(len(prompt) + len(action) - 1 for prompt, action in members)
        assert len(family) == 1 or all(len(prompt) + len(action) > SHORTEST for prompt, action in members)
    trees = lay_out(pairs, grouped)
    at = 0
    for (prompt, action), first in zip(pairs, trees.first.tolist(), strict=True):
        assert first == at
        for end in range(len(action)):
            family, place = int(trees.rows[at]), int(trees.within[at])
            column = trees.asked[family, place]
            columns = trees.seen[family, column].nonzero().flatten()
            order = columns[trees.positions[family, columns].argsort()]
            assert trees.ids[family, order].tolist() == [*prompt, *action[:end]]
            assert trees.positions[family, order].tolist() == list(range(len(order)))
            at += 1
    assert at == len(trees.rows)


def test_families_need_what_is_worth_it() -> None:
    long = list(range(100))
    assert families([(long, [1]), (long, [2])], 500) == [[0, 1]]
    assert families([(long, [1]), ([*long[:10], 5, 5], [2])], 500) == [[1], [0]], "fewer than 16 tokens in common"
    assert families([(long, [1]), ([*long[:16], *[5] * 80], [2])], 500) == [[1], [0]], "less than a quarter of the row"
    assert families([(long, [1]), (long, [2, 3])], 101) == [[0, 1]]
    assert families([(long, [1, 2]), (long, [2, 3])], 101) == [[0], [1]], "too long together"


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("rank", [None, 3], ids=["weights", "adapters"])
@pytest.mark.parametrize("longest", [70, 400])
def test_log_probabilities_and_gradients_are_those_of_plain_passes(kind: str, rank: int | None, longest: int) -> None:
    model = trainable(model_of(kind), None if rank is None else Lora(rank, 2 * rank))
    model = awake(model)
    reader, pairs = Reader(model), alike()
    assert reader.fast
    reader.shares = True
    assert reader.computed(pairs, longest) < 0.7 * sum(len(prompt) + len(action) for prompt, action in pairs)
    packed = pack(pairs)
    mixed = torch.randn(len(packed.rows), 97, generator=torch.Generator().manual_seed(1))
    found: list[dict[str, torch.Tensor]] = []
    for way in ("trees", "plain", "exact"):
        model.zero_grad()
        if way == "exact":
            model.double()
        if way == "trees":
            logits, hidden = reader.read(pairs, packed, longest)
        else:
            parts = [model(input_ids=torch.tensor([[*p, *a]]), output_hidden_states=True) for p, a in pairs]
            logits = torch.cat([part.logits[0, len(p) - 1 : -1] for part, (p, _) in zip(parts, pairs, strict=True)])
            hidden = torch.stack(
                [part.hidden_states[-1][0, len(p) - 1] for part, (p, _) in zip(parts, pairs, strict=True)]
            )
        logs = torch.log_softmax(logits, -1) if way == "exact" else distribution(logits, torch.ones(len(logits)))
        ((logs * mixed).sum() + hidden.square().sum()).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append({"logs": logs.detach(), "hidden": hidden.detach(), **gradients})
    trees, plain, exact = found
    assert trees.keys() == plain.keys() == exact.keys()
    assert rank is None or all("lora" in name or name in ("logs", "hidden") for name in trees)
    for name in ("logs", "hidden"):
        torch.testing.assert_close(trees.pop(name), plain.pop(name), rtol=1e-4, atol=1e-4)
    for name in trees:  # as near the truth as rounding lets a plain pass be
        wanted = exact[name]
        strayed, allowed = (float((gradients[name] - wanted).norm()) for gradients in (trees, plain))
        assert strayed <= 4 * allowed + 1e-5 * float(wanted.norm()) + 1e-9, name


def test_adapters_that_are_off_change_nothing_and_odd_ones_are_read_the_long_way() -> None:
    plain = model_of()
    wanted = Reader(copy.deepcopy(plain))(pack(alike()))[0]
    model = awake(trainable(plain, Lora(2, 4)))
    reader = Reader(model)
    reader.shares = True
    changed = reader.read(alike(), pack(alike()), 400)[0]
    with model.disable_adapter():
        off = reader.read(alike(), pack(alike()), 400)[0]
    assert torch.allclose(off, wanted, atol=1e-5)
    assert not torch.allclose(changed, wanted, atol=1e-2)
    for odd in ({"use_dora": True}, {"lora_dropout": 0.1}):
        strange = get_peft_model(model_of(), LoraConfig(r=2, target_modules=["q_proj"], **odd))
        assert not Reader(strange.eval()).fast, odd
    part = get_peft_model(model_of(), LoraConfig(r=2, target_modules=["v_proj", "down_proj"]))
    assert Reader(part).fast
    assert all(not p.any() for n, p in part.named_parameters() if "lora_B" in n), "what was woken sleeps again"


def test_mini_batches_of_whole_questions() -> None:
    config = PPOConfig(minibatches=3, epochs=2, by_question=True, estimator="rloo")
    trainer = PPOTrainer(model_of(), config, device="cpu")
    found = [make_run(f"r{k}", [Act("AG", (5, 6), (7,), (-1.0,), 1.0)], 0.5, question_id=f"q{k % 4}") for k in range(9)]
    trainer.objective.rows = rows_of([run for run, _ in found], {score.run_id: score for _, score in found})
    parts = [part["rows"] for part in trainer._minibatches(9)]
    assert len(parts) == 6
    for epoch in (parts[:3], parts[3:]):
        assert sorted(i for part in epoch for i in part) == list(range(9))
        asked = [{trainer.objective.rows[i].question_id for i in part} for part in epoch]
        assert sum(map(len, asked)) == 4, "no question is in two of them"
    assert parts[:3] != parts[3:]
    assert "by_question" not in PPOConfig().as_dict()
    assert PPOConfig(**config.as_dict()) == config


@pytest.mark.parametrize("rank", [None, 2], ids=["weights", "adapters"])
def test_an_update_is_the_same_with_and_without(rank: int | None) -> None:
    pairs = alike()
    lora = None if rank is None else Lora(rank, 2 * rank)
    config = PPOConfig(
        estimator="rloo", minibatches=2, lora=lora, kl_coef=0.1, kl_estimator="k3", replay_coef=0.5, replay_rows=4,
        logprob_tolerance=1e-3,
    )  # fmt: skip
    with torch.no_grad():
        packed = pack(pairs)
        logs = distribution(Reader(model_of())(packed)[0], torch.ones(len(packed.rows)))
        own = torch.split(logs.gather(-1, packed.targets[:, None]).squeeze(-1), packed.lengths.tolist())
    found = []
    for k in range(8):
        acts = [Act("AG", *pairs[(k + j) % 9], tuple(own[(k + j) % 9].tolist()), 1.0) for j in range(2)]
        found.append(make_run(f"r{k}", acts, float(k % 3), question_id=f"q{k // 4}"))
    runs, scored = [run for run, _ in found], {score.run_id: score for _, score in found}
    weights, figures = [], []
    for shares in (True, False):
        trainer = PPOTrainer(model_of(), config, replay=pairs[:5], device="cpu")
        trainer.objective.reader.shares = shares
        figures.append(trainer.update(runs, scored))
        weights.append({n: p.detach() for n, p in trainer.named_trainable().items()})
    assert figures[0]["repeated_share"] > 0.3
    assert figures[1]["repeated_share"] == 0
    for name in ("policy_loss", "kl_reference", "replay_nll", "entropy", "grad_norm"):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-3, abs=1e-5)
    for name, wanted in weights[1].items():
        # Adam's first step is the sign of the gradient: of a few numbers that is noise, and so is their step.
        assert float((weights[0][name] - wanted).norm()) <= 0.05 * float(wanted.norm()) + 1e-6, name
