"""The trainer: exact at the first step, equal however it is cut up or stopped, and it learns."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from jade_graph.backbones.hf import HFBackbone
from jade_graph.errors import DataError
from jade_graph.testing.models import make_random_model
from jade_graph.testing.runs import Act, make_run
from jade_graph.types import Sampling
from jade_training.learner.logits import Reader, chunks, distribution, few_threads, pack
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.learner.trainer import PPOTrainer
from jade_training.learner.trl_ import _Base

pytestmark = pytest.mark.usefixtures("one_thread")


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logprobs(model, pairs, temperature=1.0):
    packed = pack(pairs)
    logs = distribution(Reader(model)(packed)[0], torch.full((len(packed.rows),), temperature))
    own = logs.gather(-1, packed.targets[:, None]).squeeze(-1)
    return [tuple(part.tolist()) for part in torch.split(own, packed.lengths.tolist())]


@pytest.fixture(scope="module")
def recorded(folder):
    """24 runs of 12 questions, ragged prompts and actions, sampled (as it were) at temperature 0.8."""
    rng = random.Random(0)
    pairs = [
        ([rng.randrange(4, 300) for _ in range(rng.randint(3, 20))], [rng.randrange(300) for _ in range(1 + k % 7)])
        for k in range(48)
    ]
    logs = logprobs(load(folder).eval(), pairs, 0.8)
    found = []
    for k in range(24):
        acts = [
            Act(role, *pairs[2 * k + j], logs[2 * k + j], 0.8, {"format": -0.5} if k % 5 == j else {})
            for j, role in enumerate(("PL", "AG"))
        ]
        found.append(make_run(f"r{k:02}", acts, rng.random(), question_id=f"q{k // 2}"))
    return [run for run, _ in found], {s.run_id: s for _, s in found}


def weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.named_trainable().items()}


def equal(one, two, tolerance=0.0):
    assert one.keys() == two.keys()
    return all(torch.allclose(one[n], two[n], rtol=0, atol=tolerance) for n in one)


def gradient(trainer, recorded, **batch):
    """Gradients of the first mini-batch, before clipping and the optimiser."""
    kept = {}

    def stop(loss, plans, rows, tokens):
        kept.update({n: p.grad.clone() for n, p in trainer.named_trainable().items() if p.grad is not None})
        trainer.control.should_training_stop = True
        trainer.optimizer.zero_grad(set_to_none=True)

    trainer._step_or_stop = stop
    trainer.update(*recorded)
    return kept


# --- the first step -------------------------------------------------------------------------------------------------
def test_it_is_a_trl_trainer():
    assert issubclass(PPOTrainer, _Base)
    assert _Base.__module__.startswith("trl.")


async def test_the_samplers_logprobs_are_the_trainers(folder):
    backbone = HFBackbone.load(folder, device="cpu", dtype="float32")
    prompts = [[5, 6, 7, 8][: 2 + k % 3] * (1 + k) for k in range(6)]
    done = [await backbone.generate(p, Sampling(0.7, max_new_tokens=9, seed=k)) for k, p in enumerate(prompts)]
    await backbone.aclose()
    pairs = [(p, d.token_ids) for p, d in zip(prompts, done, strict=True)]
    for ours, d in zip(logprobs(load(folder).eval(), pairs, 0.7), done, strict=True):
        assert ours == pytest.approx(d.logprobs, abs=1e-5)
    acts = [Act("AG", p, d.token_ids, d.logprobs, 0.7) for p, d in zip(prompts, done, strict=True)]
    made = [make_run(f"r{k}", [a], k / 6) for k, a in enumerate(acts)]
    scored = {s.run_id: s for _, s in made}
    config = PPOConfig(minibatches=1, logprob_tolerance=1e-5)
    metrics = PPOTrainer(folder, config, device="cpu").update([r for r, _ in made], scored)
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-5)


def test_ratio_1_clip_0_and_kl_0_at_the_first_step(folder, recorded):
    config = PPOConfig(minibatches=1, kl_coef=0.1, logprob_tolerance=1e-5)
    metrics = PPOTrainer(folder, config, device="cpu").update(*recorded)
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_old"] == pytest.approx(0, abs=1e-8)
    assert metrics["kl_reference"] == pytest.approx(0, abs=1e-6)


def test_dropout_is_off_even_that_of_attention(recorded, folder):
    model = load(folder)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    trainer = PPOTrainer(model, PPOConfig(minibatches=1, logprob_tolerance=1e-5), device="cpu")
    trainer.model.train()
    assert trainer.update(*recorded)["ratio_mean"] == pytest.approx(1, abs=1e-5)


def test_a_wrong_temperature_or_other_weights_are_caught(folder, recorded):
    runs, scored = recorded
    wrong = [make_run(r.id, [Act(t.role, t.prompt_token_ids, t.action_token_ids, t.old_logprobs, 1.2)
                             for t in r.transitions], 1.0)[0] for r in runs]  # fmt: skip
    trainer = PPOTrainer(folder, PPOConfig(), device="cpu")
    before = weights(trainer)
    with pytest.raises(DataError) as caught:
        trainer.update(wrong, scored)
    assert caught.value.error_code == "LOGPROBS_DIFFER"
    assert equal(before, {**weights(trainer), "value.linear.bias": before["value.linear.bias"]})


def test_stale_versions_are_refused(folder, recorded):
    with pytest.raises(DataError) as caught:
        PPOTrainer(folder, device="cpu").update(*recorded, version="v1")
    assert caught.value.error_code == "STALE_VERSION"


def test_nothing_to_train_on_is_an_error(folder, recorded):
    trainer = PPOTrainer(folder, device="cpu", roles=frozenset({"QR"}))
    with pytest.raises(DataError) as caught:
        trainer.update(*recorded)
    assert caught.value.error_code == "ROWS_EMPTY"


# --- the forward pass -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_a_padded_row_is_the_row_alone_and_the_short_way_the_models_own(tmp_path, arch):
    model = load(make_random_model(tmp_path, arch=arch, width=16, heads=2)).eval()
    reader = Reader(model)
    assert reader.short
    assert reader.fast
    pairs = [([5, 6, 7], [8, 9]), ([4] * 30, [3]), ([11, 12], [13, 14, 15, 16])]
    logits, hidden = reader(pack(pairs))
    at = 0
    for i, (prompt, action) in enumerate(pairs):
        alone, state = reader(pack([pairs[i]]))
        assert torch.allclose(logits[at : at + len(action)], alone, atol=1e-5)
        assert torch.allclose(hidden[i], state[0], atol=1e-5)
        own = model(input_ids=torch.tensor([[*prompt, *action]])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(alone, own, atol=1e-5)
        at += len(action)


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_the_fast_pass_has_the_models_own_logits_and_gradients(tmp_path, arch):
    model = load(make_random_model(tmp_path, arch=arch, width=32, heads=4, layers=3))
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(300, (n,), generator=generator).tolist()  # noqa: E731
    pairs = [(draw(1 + 3 * k), draw(1 + k % 4)) for k in range(7)]
    reader, packed, found = Reader(model), pack(pairs), []
    assert reader.fast
    for fast in (True, False):
        model.zero_grad()
        reader._fast = reader._fast if fast else None
        logits, hidden = reader(packed)
        (distribution(logits, torch.ones(len(logits)))[:, 7].sum() + hidden.square().mean()).backward()
        found.append({"logits": logits.detach(), **{n: p.grad.clone() for n, p in model.named_parameters()}})
    for name, wanted in found[1].items():
        assert torch.allclose(found[0][name], wanted, rtol=0, atol=2e-5 * wanted.abs().max().item() + 1e-7), name


def test_models_that_scale_their_logits_are_run_the_long_way(folder):
    model = load(folder).eval()

    class Scaled(type(model)):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = 0.5 * out.logits
            return out

    plain = Reader(model)(pack([([5, 6], [7, 8])]))[0]
    model.__class__ = Scaled
    reader = Reader(model)
    assert not reader.short
    assert torch.allclose(reader(pack([([5, 6], [7, 8])]))[0], 0.5 * plain, atol=1e-6)


def test_causality_the_last_token_changes_only_itself(folder):
    model = load(folder).eval()
    [one], [two] = (logprobs(model, [([5, 6, 7], [8, 9, last])]) for last in (10, 11))
    assert one[:2] == two[:2]
    assert one[2] != two[2]


def test_chunks_hold_every_row_once_within_the_budget():
    lengths = [random.Random(1).randint(1, 90) for _ in range(100)] + [500]
    found = chunks(lengths, 200)
    assert sorted(i for chunk in found for i in chunk) == list(range(101))
    assert all(len(c) == 1 or len(c) * max(lengths[i] for i in c) <= 200 for c in found)


def test_chunks_keep_padding_small():
    lengths = [5] * 12 + [200, 210]
    found = chunks(lengths, 4000)
    assert sorted(map(sorted, found)) == [list(range(12)), [12, 13]]
    padding = [len(c) * max(lengths[i] for i in c) - sum(lengths[i] for i in c) for c in found]
    assert max(padding) <= 4000 // 8


def test_a_small_model_learns_on_one_thread_and_gives_the_others_back(folder, recorded):
    trainer = PPOTrainer(folder, PPOConfig(minibatches=2), device="cpu")
    seen, step = set(), trainer.training_step
    trainer.training_step = lambda *given: (seen.add(torch.get_num_threads()), step(*given))[1]
    torch.set_num_threads(2)
    trainer.update(*recorded)
    assert torch.get_num_threads() == 2
    trainer._step_or_stop = lambda *given: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.update(*recorded)
    assert torch.get_num_threads() == 2
    assert seen == {1}


def test_the_number_of_threads_is_left_alone_for_large_models(monkeypatch):
    model = torch.nn.Linear(3, 4)
    torch.set_num_threads(2)
    with few_threads(model):
        assert torch.get_num_threads() == 1
    monkeypatch.setattr("jade_training.learner.logits.FEW_THREADS", 16)
    with few_threads(model):
        assert torch.get_num_threads() == 2


# --- gradients --------------------------------------------------------------------------------------------------------
FULL = {
    "minibatches": 2,
    "kl_coef": 0.1,
    "kl_estimator": "k3",
    "entropy_coef": 0.01,
    "role_weights": {"PL": 3.0},
    "per_run_weighting": True,
    "replay_coef": 0.1,
    "bank_kl_coef": 0.2,
}


@pytest.mark.parametrize("normalisation", ["row", "token"])
def test_accumulation_changes_nothing(folder, recorded, normalisation):
    replay = [([5, 6, 7][: 1 + k % 3], [9] * (1 + k % 4)) for k in range(9)]
    found = [
        gradient(
            PPOTrainer(
                folder,
                PPOConfig(**FULL, micro_tokens=size, normalisation=normalisation),
                device="cpu",
                replay=replay,
                bank=replay,
            ),
            recorded,
        )
        for size in (1, 64, 10_000)
    ]
    assert any(g.abs().max() > 1e-3 for g in found[0].values())
    for other in found[:2]:  # float32 sums in another order: some units in the last place of the largest
        assert other.keys() == found[2].keys()
        assert all((other[n] - found[2][n]).abs().max() <= 5e-6 * found[2][n].abs().max() for n in other)


def test_the_gradient_at_the_first_step_is_reinforce_and_none_on_what_is_observed(folder, recorded):
    """Against a loop that knows no batches: sum_rows mean_tokens -A log pi / rows, through the plain model."""
    runs, scored = recorded
    trainer = PPOTrainer(folder, PPOConfig(minibatches=1, estimator="rloo", whitening="none"), device="cpu")
    ours = gradient(trainer, recorded)
    model = load(folder).requires_grad_(True)
    total, outcome = torch.zeros(()), {r.id: scored[r.id].outcome["outcome"] for r in runs}
    for k, run in enumerate(runs):
        for t, own in zip(run.transitions, scored[run.id].actions, strict=True):
            ids = torch.tensor([[*t.prompt_token_ids, *t.action_token_ids]])
            n = len(t.prompt_token_ids)
            logits = model(input_ids=ids).logits[0, n - 1 : -1] / 0.8
            own_logs = torch.log_softmax(logits, -1).gather(-1, ids[0, n:, None])
            advantage = outcome[run.id] - outcome[runs[k ^ 1].id] + sum(own.values())
            total = total - advantage * own_logs.mean() / 48
    total.backward()
    theirs = {f"policy.{n}": p.grad for n, p in model.named_parameters()}
    assert equal({n: g for n, g in ours.items() if n in theirs}, theirs, 1e-6)


def test_logits_of_observation_tokens_have_no_gradient_at_all(folder, recorded):
    trainer = PPOTrainer(folder, PPOConfig(minibatches=1, value_coef=0.0), device="cpu")
    kept = []

    def hook(module, args, output):
        output.register_hook(lambda g: kept.append((output.shape[0], g)))

    trainer.model.lm_head.register_forward_hook(hook)
    metrics = trainer.update(*recorded)
    # the head was only run at action positions: there is no logit of an observation that could have one
    assert (
        sum(n for n, _ in kept)
        == metrics["gradient_tokens"]
        == sum(len(t.action_token_ids) for r in recorded[0] for t in r.transitions)
    )


def test_roles_that_are_not_trained_enter_no_gradient(folder, recorded):
    runs, scored = recorded
    config = PPOConfig(minibatches=1, estimator="rloo")
    ours = gradient(PPOTrainer(folder, config, device="cpu", roles=frozenset({"PL"})), recorded)
    planner = [make_run(r.id, [Act(t.role, t.prompt_token_ids, t.action_token_ids, t.old_logprobs, 0.8, own)],
                        scored[r.id].outcome["outcome"], question_id=r.question_id)
               for r in runs for t, own in [(r.transitions[0], scored[r.id].actions[0])]]  # fmt: skip
    alone = gradient(
        PPOTrainer(folder, config, device="cpu"), ([r for r, _ in planner], {s.run_id: s for _, s in planner})
    )
    assert equal(ours, alone, 1e-7)


# --- whole updates ----------------------------------------------------------------------------------------------------
def test_the_order_of_runs_changes_nothing(folder, recorded):
    runs, scored = recorded
    one, two = (PPOTrainer(folder, PPOConfig(learning_rate=1e-2), device="cpu") for _ in range(2))
    first, second = one.update(runs, scored), two.update(runs[::-1], scored)
    assert equal(weights(one), weights(two))
    assert first["value_loss"] == second["value_loss"]


@pytest.mark.parametrize("lora", [None, Lora(4, 8)])
def test_a_resumed_training_ends_with_the_same_bits(folder, recorded, tmp_path, lora):
    config = PPOConfig(
        learning_rate=1e-2, epochs=2, logprob_tolerance=None, kl_coef=0.1, replay_coef=0.1, replay_rows=2, lora=lora,
        schedule="linear", updates=4,
    )  # fmt: skip
    replay = [([5, 6, k], [9, 1]) for k in range(9)]
    build = lambda: PPOTrainer(folder, config, device="cpu", replay=replay)  # noqa: E731
    straight = build()
    for _ in range(3):
        last = straight.update(*recorded)
    stopped = build()
    stopped.update(*recorded)
    stopped.save_checkpoint(tmp_path / "one")
    stopped.save_checkpoint(tmp_path / "one")
    resumed = build()
    resumed.load_checkpoint(tmp_path / "one")
    assert {p.suffix for p in (tmp_path / "one").iterdir()} == {".safetensors", ".json"}
    for _ in range(2):
        again = resumed.update(*recorded)
    assert equal(weights(straight), weights(resumed))
    assert again["update"] == last["update"] == 3
    assert again["grad_norm"] == last["grad_norm"]
    assert last["learning_rate"] == pytest.approx(1e-2 * 0.4)


def test_checkpoints_of_other_models_and_of_nothing_are_refused(folder, tmp_path, recorded):
    trainer = PPOTrainer(folder, device="cpu")
    with pytest.raises(DataError) as caught:
        trainer.load_checkpoint(tmp_path / "none")
    assert caught.value.error_code == "CHECKPOINT_MISSING"
    trainer.save_checkpoint(tmp_path / "one")
    other = PPOTrainer(make_random_model(tmp_path / "other", width=32), device="cpu")
    with pytest.raises(DataError) as caught:
        other.load_checkpoint(tmp_path / "one")
    assert caught.value.error_code == "CHECKPOINT_DIFFERS"


@pytest.mark.parametrize("lora", [None, Lora(4, 8)])
def test_an_export_is_the_policy(folder, recorded, tmp_path, lora):
    trainer = PPOTrainer(folder, PPOConfig(learning_rate=1e-2, lora=lora, kl_coef=0.1), device="cpu")
    pairs = [([5, 6, 7], [8, 9, 10])]
    before = logprobs(load(folder).eval(), pairs)
    trainer.update(*recorded)
    trainer.export(tmp_path / "out")
    [after] = logprobs(load(tmp_path / "out").eval(), pairs)
    assert after == pytest.approx(logprobs(trainer.model, pairs)[0], abs=1e-5)
    assert after != pytest.approx(before[0], abs=1e-3)
    assert (tmp_path / "out" / "value_head.safetensors").is_file()
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_adapters_leave_the_base_weights_and_are_the_reference_when_off(folder, recorded):
    trainer = PPOTrainer(folder, PPOConfig(lora=Lora(4, 8), kl_coef=0.1, learning_rate=1e-1), device="cpu")
    trainer.update(*recorded)
    base = load(folder).state_dict()
    inside = {n.replace(".base_layer", ""): p for n, p in trainer.model.get_base_model().named_parameters()}
    assert all(torch.equal(inside[n], base[n]) for n in base if n in inside)
    with trainer.model.disable_adapter():
        off = logprobs(trainer.model, [([5, 6], [7])])
    assert off[0] == pytest.approx(logprobs(load(folder).eval(), [([5, 6], [7])])[0], abs=1e-5)
    assert off[0] != pytest.approx(logprobs(trainer.model, [([5, 6], [7])])[0], abs=1e-2)


def test_an_update_stops_at_its_target_kl(folder, recorded):
    config = PPOConfig(learning_rate=0.1, minibatches=4, epochs=3, target_kl=1e-4)
    trainer = PPOTrainer(folder, config, device="cpu")
    metrics = trainer.update(*recorded)
    assert metrics["steps"] == 1
    assert metrics["stopped_early"] == 1
    assert metrics["gradient_rows"] == 12


def test_what_is_not_finite_moves_nothing(folder, recorded):
    trainer = PPOTrainer(folder, PPOConfig(logprob_tolerance=None), device="cpu")
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = float("inf")
    before = weights(trainer)
    with pytest.raises(DataError) as caught:
        trainer.update(*recorded)
    assert caught.value.error_code == "TRAIN_NOT_FINITE"
    after = weights(trainer)
    assert torch.equal(before["policy.lm_head.weight"], after["policy.lm_head.weight"])


def test_replay_and_the_bank_hold_what_was_known(folder, recorded):
    """Demonstrations become likelier; on the bank the policy stays nearer the reference."""
    pairs = [([20 + k, 21], [30 + k, 31]) for k in range(6)]
    some = {"learning_rate": 1e-2, "logprob_tolerance": None}
    free = PPOTrainer(folder, PPOConfig(**some), device="cpu")
    held = PPOTrainer(folder, PPOConfig(**some, replay_coef=5.0), device="cpu", replay=pairs)
    near = PPOTrainer(folder, PPOConfig(**some, bank_kl_coef=20.0), device="cpu", bank=pairs)
    start = logprobs(load(folder).eval(), pairs)
    for trainer in (free, held, near):
        for _ in range(3):
            last = trainer.update(*recorded)
    assert last["bank_kl"] > 0
    moved = {
        name: np.concatenate(logprobs(t.model, pairs)) - np.concatenate(start)
        for name, t in {"free": free, "held": held, "near": near}.items()
    }
    assert moved["held"].mean() > 0.5
    assert moved["held"].mean() > moved["free"].mean()
    assert np.abs(moved["near"]).mean() < np.abs(moved["free"]).mean() / 2


def test_metrics_are_a_line_of_json(folder, recorded, tmp_path):
    trainer = PPOTrainer(folder, PPOConfig(entropy_coef={"PL": 0.1}), device="cpu", out=tmp_path)
    runs, scored = recorded
    unscored = make_run("u", [Act("AG", (5,), (6,), (-1.0,))], None)
    metrics = trainer.update([*runs, unscored[0]], {**scored, "u": unscored[1]}, step=7)
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 7, **metrics}
    assert metrics["rows"] == 48
    assert (metrics["runs"], metrics["unscored"]) == (24, 1)
    mean = np.mean([s.total for s in scored.values()])
    assert metrics["reward"] == pytest.approx(mean)
    assert metrics["reward/format"] < 0
    for role in ("PL", "AG"):
        assert metrics[f"{role}/rows"] == 24
        assert metrics[f"{role}/entropy"] > 0
        assert metrics[f"{role}/advantage_std"] > 0
    assert metrics["tokens_read"] == sum(len(t.prompt_token_ids) + len(t.action_token_ids) for r in runs for t in r.transitions)  # noqa: E501  # fmt: skip


def test_construction_leaves_the_callers_random_numbers_alone(folder):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    PPOTrainer(folder, device="cpu")
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted


# --- learning ---------------------------------------------------------------------------------------------------------
def play(model, seed, questions=24, runs=4):
    """Two roles: "PL" must write 10 + c first where it sees c, "AG" 20 + c; half of the reward each."""
    generator = torch.Generator().manual_seed(seed)
    cues = [q % 4 for q in range(questions) for _ in range(runs)]
    drawn = {}
    for role, marker in (("PL", 4), ("AG", 5)):
        ids = torch.tensor([[marker, 30 + cue] for cue in cues])
        with torch.no_grad():
            for _ in range(2):
                chances = model(input_ids=ids).logits[:, -1].softmax(-1)
                ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], 1)
        drawn[role] = [(row[:2], row[2:]) for row in ids.tolist()]
    logs = {role: logprobs(model, pairs) for role, pairs in drawn.items()}
    made = []
    for i, cue in enumerate(cues):
        right = (drawn["PL"][i][1][0] == 10 + cue) + (drawn["AG"][i][1][0] == 20 + cue)
        acts = [Act(role, *drawn[role][i], logs[role][i]) for role in ("PL", "AG")]
        made.append(make_run(f"{seed:03}-{i:03}", acts, right / 2, question_id=f"q{i // runs}"))
    return [r for r, _ in made], {s.run_id: s for _, s in made}


@pytest.mark.parametrize("estimator", ["gae", "rloo"])
def test_two_roles_learn_from_chance(estimator):
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                         num_attention_heads=2, max_position_embeddings=16)).eval()  # fmt: skip
    config = PPOConfig(
        estimator=estimator, learning_rate=5e-3, epochs=2, value_clip=None, schedule="linear", updates=30
    )
    trainer = PPOTrainer(model, config, device="cpu")
    rewards = [trainer.update(*play(trainer.model, seed))["reward"] for seed in range(30)]
    assert rewards[0] < 0.2
    assert min(rewards[-3:]) > 0.8
