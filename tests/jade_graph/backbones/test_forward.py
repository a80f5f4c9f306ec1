"""Every forward pass against the plain one: a row's logits in a ragged batch are those it has alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.forward import HFSession, Session, prefill_groups, reserves
from jade_graph.backbones.lean import LeanModel
from jade_graph.backbones.lean_session import LeanSession

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
BLOOM = {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE),
    "llama, biases and scaled rotation": (
        "llama",
        {**SHAPE, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    "llama, one key head": ("llama", {**SHAPE, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", SHAPE),
    "qwen3, norms on queries": ("qwen3", {**SHAPE, "head_dim": 16}),
    "gemma3, sliding window": ("gemma3_text", {**SHAPE, "sliding_window": 6}),
    "gpt2, learned positions": ("gpt2", GPT2),
    "bloom, no positions at all": ("bloom", BLOOM),
}
LEAN = [name for name in ARCHITECTURES if name.startswith(("llama", "qwen"))]


def ragged() -> list[list[int]]:
    return [row[:length] for row, length in zip(tokens(5, 20, 1), (3, 5, 5, 12, 20), strict=True)]


def alike() -> list[list[int]]:
    """Five of nine prompts begin with the same 20 tokens, two of them are equal; three share 33; one is alone."""
    one, other, alone = tokens(3, 40, 3)
    ends = tokens(7, 20, 4)
    prompts = [one[:20] + ends[i][:n] for i, n in enumerate((2, 9, 20, 1))] + [one[:20] + ends[1][:9]]
    prompts += [other[:33] + ends[i + 4][:n] for i, n in enumerate((5, 1, 14))]
    return sorted([*prompts, alone[:7]], key=len)


BATCHES = {"ragged": ragged, "alike": alike}


def build(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, options = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    return model.requires_grad_(False)


def tokens(rows: int, columns: int, seed: int) -> list[list[int]]:
    return torch.randint(1, 60, (rows, columns), generator=torch.Generator().manual_seed(seed)).tolist()


def assert_equals_plain_forward(model: Any, prompts: list[list[int]], session: Session) -> Session:
    """Prefill and six steps, in which rows leave, against one plain forward pass per row."""
    count = len(prompts)
    new = torch.tensor(tokens(count, 6, 2))
    rows = list(range(count))

    def check(logits: torch.Tensor, step: int) -> None:
        for position, row in enumerate(rows):
            ids = torch.tensor([prompts[row] + new[row, :step].tolist()])
            plain = model(ids).logits[0, -1]
            torch.testing.assert_close(logits[position], plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))

    with torch.inference_mode():
        check(session.admit(prompts, [6] * count), 0)
        for step in range(6):
            check(session.step(new[rows, step]), step + 1)
            if step == 1:  # rows 1 and 2 end: the last two take their places
                session.drop(torch.tensor([1, 2]), torch.tensor([count - 1, count - 2]), count - 2)
                rows = [0, count - 1, count - 2, *range(3, count - 2)]
            elif step == 3:  # the last row ends
                session.drop(torch.tensor([]).long(), torch.tensor([]).long(), count - 3)
                rows = rows[:-1]
    return session


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("budget", [24, 4096])
@pytest.mark.parametrize("batch", BATCHES)
def test_transformers(name: str, budget: int, batch: str) -> None:
    model = build(name)
    prompts = BATCHES[batch]()
    session = assert_equals_plain_forward(model, prompts, HFSession(model, budget))
    shares = reserves(model) and batch == "alike"
    assert (session.padded_tokens < sum(map(len, prompts))) == shares, "a common beginning is computed once"


@pytest.mark.parametrize("name", LEAN)
@pytest.mark.parametrize("budget", [24, 4096])
@pytest.mark.parametrize("batch", BATCHES)
def test_lean(name: str, budget: int, batch: str) -> None:
    model = build(name)
    lean = LeanModel.of(model)
    assert lean is not None
    prompts = BATCHES[batch]()
    for _ in range(2):
        session = assert_equals_plain_forward(model, prompts, LeanSession(lean, budget))
        assert (session.padded_tokens < sum(map(len, prompts))) == (batch == "alike")


def test_lean_reads_the_weights_as_they_are() -> None:
    model = build("llama")
    lean = LeanModel.of(model)
    assert lean is not None
    for parameter in model.parameters():
        parameter.mul_(0.7)
    assert_equals_plain_forward(model, ragged(), LeanSession(lean, 4096))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks by an old name
@pytest.mark.parametrize("targets", [["q_proj"], ["down_proj"], ["lm_head"]])
def test_lean_refuses_adapters_even_while_they_change_nothing(targets: list[str]) -> None:
    from peft import LoraConfig, get_peft_model

    model = build("llama")
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    assert any("lora" in name for name, _ in model.named_modules())
    assert LeanModel.of(model) is None
    assert LeanModel.of(wrapped) is None
    assert LeanModel.of(wrapped.merge_and_unload()) is not None


def test_lean_is_not_offered_where_it_would_be_wrong() -> None:
    assert LeanModel.of(build("gemma3, sliding window")) is None
    assert LeanModel.of(build("gpt2, learned positions")) is None
    assert LeanModel.of(build("llama").to(torch.float16)) is None
    mixed = build("llama")
    mixed.lm_head.to(torch.bfloat16)
    assert LeanModel.of(mixed) is None
    other = build("llama")
    other.config.hidden_act = "gelu"
    assert LeanModel.of(other) is None
    disagreeing = build("llama")
    disagreeing.config.rms_norm_eps = 1.0  # the layers keep the old one: the self-check sees the difference
    assert LeanModel.of(disagreeing) is None


def test_lean_memory_is_reused_but_not_hoarded() -> None:
    lean = LeanModel.of(build("llama"))
    assert lean is not None
    slabs = lean.take_slabs()
    slabs.add([9])
    pointer = slabs.room(0).data_ptr()
    lean.keep(slabs, lean.take_cache())
    again = lean.take_slabs()
    assert len(again) == 0
    again.add([9])
    assert again.room(0).data_ptr() == pointer
    assert len(lean.take_slabs()) == 0, "who fails gives nothing back"
    again.add([1_500_000])
    lean.keep(again, lean.take_cache())
    assert lean.take_slabs().nbytes < 1000


@pytest.mark.parametrize("name", ["llama", "llama, one key head", "qwen3, norms on queries", "gpt2, learned positions"])
@pytest.mark.parametrize("kind", ["lean", "transformers"])
@pytest.mark.parametrize("seed", range(4))
def test_rows_join_and_leave_as_they_like(name: str, kind: str, seed: int) -> None:
    """After every event each row has the logits of a plain forward pass over its own tokens."""
    model = build(name)
    lean = LeanModel.of(model)
    if kind == "lean" and lean is None:
        assert name not in LEAN
        return
    session = LeanSession(lean, 24) if kind == "lean" and lean is not None else HFSession(model, 24)
    assert session.open
    rng = random.Random(seed)
    pool = [*alike(), *ragged(), tokens(1, 45, 9)[0]]
    rows: list[list[int]] = []

    def check(logits: torch.Tensor, some: list[list[int]]) -> None:
        for row, ids in zip(logits, some, strict=True):
            plain = model(torch.tensor([ids])).logits[0, -1]
            torch.testing.assert_close(row, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))

    with torch.inference_mode():
        for _ in range(40):
            asked = [list(rng.choice(pool)) for _ in range(rng.choice([0, 0, 1, 2, 5]) if rows else 3)]
            if asked:
                check(session.admit(asked, [40] * len(asked)), asked)
                rows += asked
            new = [rng.randrange(60) for _ in rows]
            rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
            check(session.step(torch.tensor(new)), rows)
            stay = [len(row) < 70 and rng.random() < 0.8 for row in rows]
            count = sum(stay)
            holes = [row for row in range(count) if not stay[row]]
            movers = [row for row in range(count, len(rows)) if stay[row]]
            session.drop(torch.tensor(holes).long(), torch.tensor(movers).long(), count)
            for hole, mover in zip(holes, movers, strict=True):
                rows[hole] = rows[mover]
            rows = rows[:count]
    session.close()


@pytest.mark.parametrize("kind", ["lean", "transformers"])
def test_a_row_that_went_wrong_leaves_nothing_behind(kind: str) -> None:
    model = build("llama")
    lean = LeanModel.of(model)
    assert lean is not None
    session: Any = LeanSession(lean, 24) if kind == "lean" else HFSession(model, 24)
    one, other, third = tokens(3, 12, 8)
    with torch.inference_mode():
        session.admit([one, other], [5, 5])
        where = session._slabs.room(1) if kind == "lean" else session._slab[0].slab[0][1]
        where.fill_(float("nan"))
        session.wipe([1])
        session.drop(torch.tensor([]).long(), torch.tensor([]).long(), 1)
        session.admit([third[:4]], [5])
        logits = session.step(torch.tensor([7, 7]))
        for row, ids in zip(logits, ([*one, 7], [*third[:4], 7]), strict=True):
            torch.testing.assert_close(row, model(torch.tensor([ids])).logits[0, -1], rtol=1e-4, atol=1e-4)


def test_prompts_that_begin_as_an_earlier_one_did_are_not_computed_again() -> None:
    lean = LeanModel.of(build("llama"))
    assert lean is not None
    session = LeanSession(lean, 1000)
    long = tokens(1, 50, 5)[0]
    with torch.inference_mode():
        session.admit([long, long[:20]], [5, 5])
        assert session.padded_tokens == 51
        session.drop(torch.tensor([]).long(), torch.tensor([]).long(), 0)
        session.admit([long, [*long[:40], 1, 2]], [5, 5])
        assert session.padded_tokens == 51 + 1 + 2


def test_what_is_known_outlives_the_batch_where_the_weights_stay() -> None:
    model = build("llama")
    prompt = tokens(1, 50, 5)[0]
    for constant in (True, False):
        lean = LeanModel.of(model, constant=constant)
        assert lean is not None
        for run, known in enumerate((0, 40 if constant else 0)):
            ids = [*prompt[:40], *tokens(1, 5, run)[0]]
            session = LeanSession(lean, 1000)
            with torch.inference_mode():
                logits = session.admit([ids], [5])[0]
            assert session.padded_tokens == len(ids) - known
            torch.testing.assert_close(logits, model(torch.tensor([ids])).logits[0, -1], rtol=1e-4, atol=1e-4)
            session.close()


def test_what_is_known_goes_with_the_weights_that_computed_it() -> None:
    """A learner that trains the very model that is served: the next batch knows nothing of the old weights."""
    model = build("llama")
    lean = LeanModel.of(model, constant=True)
    assert lean is not None
    prompt = tokens(1, 40, 5)[0]
    for step in range(3):
        session = LeanSession(lean, 1000)
        with torch.inference_mode():
            logits = session.admit([[*prompt, step + 1]], [5])[0]
        session.close()
        assert session.padded_tokens == (1 if step == 1 else 41)
        plain = model(torch.tensor([[*prompt, step + 1]])).logits[0, -1]
        torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
        if step == 1:
            model.requires_grad_(True)
            model(torch.tensor([prompt])).logits.square().mean().backward()
            torch.optim.AdamW(model.parameters(), lr=0.05, fused=True).step()
            model.requires_grad_(False)


def test_nothing_is_known_after_a_batch_that_failed_or_was_not_finite() -> None:
    lean = LeanModel.of(build("llama"), constant=True)
    assert lean is not None
    prompt = tokens(1, 30, 5)
    with torch.inference_mode():
        LeanSession(lean, 1000).admit(prompt, [5])  # and never closed
        session = LeanSession(lean, 1000)
        session.admit(prompt, [5])
        assert session.padded_tokens == 30
        session.wipe([0])
        session.close()
        again = LeanSession(lean, 1000)
        again.admit(prompt, [5])
        assert again.padded_tokens == 30


@pytest.mark.parametrize("name", LEAN)
def test_lean_in_bfloat16_rounds_about_as_transformers_does(name: str) -> None:
    """Against the same weights in float32: ours strays no further than theirs, give or take a half."""
    model = build(name).to(torch.bfloat16)
    lean = LeanModel.of(model)
    assert lean is not None
    prompts = [*ragged(), *alike()]
    count, new = len(prompts), torch.tensor(tokens(len([*ragged(), *alike()]), 1, 2)).squeeze(1)
    exact = build(name).to(torch.bfloat16).float()
    strayed = []
    with torch.inference_mode():
        plain = [
            exact(torch.tensor([[*ids, token]])).logits[0, -1] for ids, token in zip(prompts, new.tolist(), strict=True)
        ]
        for session in (LeanSession(lean, 24), HFSession(model, 24)):
            session.admit(prompts, [6] * count)
            logits = session.step(new).float()
            strayed.append(float((logits - torch.stack(plain)).norm()))
    assert 0 < strayed[0] < 1.5 * strayed[1]


def test_only_models_that_attend_to_everything_get_reserved_room() -> None:
    assert reserves(build("llama"))
    assert not reserves(build("gemma3, sliding window"))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.integers(1, 2000))
def test_prefill_groups_cover_the_rows_with_little_padding(lengths: list[int], budget: int) -> None:
    lengths = sorted(lengths)
    groups = list(prefill_groups(lengths, budget))
    assert [row for first, last in groups for row in range(first, last)] == list(range(len(lengths)))
    for first, last in groups:
        padded = (last - first) * lengths[last - 1]
        assert last - first == 1 or padded <= budget
        assert last - first <= 4 or padded - sum(lengths[first:last]) <= 0.15 * padded
