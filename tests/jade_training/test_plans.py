"""The planner's comparisons: what they hold, where the loss is least, what it is blind to, and that they are kept."""

import math

import numpy as np
import pytest
import torch

from jade_graph.backbones import TINY
from jade_training.forward import Reader
from jade_training.plans import Comparison, comparisons, preference_loss
from jade_training.ppo import PPOConfig
from jade_training.rows import Row
from jade_training.trainer import PPOTrainer

CPU = torch.device("cpu")


def row(run, action, outcome, *, prompt=(5, 6), role="PL", question="q", logprob=-1.0, **other):
    return Row(run, question, 0, role, prompt, action, (logprob,) * len(action), outcome=outcome, **other)


@pytest.fixture
def trainer():
    return PPOTrainer(TINY, PPOConfig(estimator="tree", plan_temperature=0.1), device="cpu")


@pytest.fixture
def planned(trainer):
    """A prompt of the planner and three of its plans, as ids."""
    ids = trainer.tokenizer

    def encoded(text):
        return tuple(ids(text, add_special_tokens=False)["input_ids"])

    plans = (f"<workflow>{plan}</workflow>" for plan in ("AG", "R,AG", "QDS"))
    return encoded("plan : Who wrote Prophet of Monks?\n"), tuple((*encoded(p), ids.eos_token_id) for p in plans)


def scores(trainer, prompt, plans, temperature=1.0):
    """log pi of each plan, token by token, by transformers alone."""
    found = []
    for plan in plans:
        ids = torch.tensor([[*prompt, *plan]])
        logs = torch.log_softmax(trainer.model(ids).logits[0].float() / temperature, -1)
        found.append(sum(float(logs[len(prompt) - 1 + i, t].detach()) for i, t in enumerate(plan)))
    return np.array(found)


def test_what_was_written_for_one_prompt_is_compared_by_mean_outcome():
    rows = [
        row("a", (1,), 1.0), row("b", (1,), 0.0), row("c", (2,), 0.2, local=-0.3),
        row("g", (8,), 1.0, local=-0.3, valid=False),
        row("d", (3,), 1.0, prompt=(7,)), row("e", (4,), 1.0, question="z"), row("f", (9,), 1.0, role="AG"),
    ]  # fmt: skip
    found = comparisons(rows, 4)
    assert found == [
        Comparison("q", (5, 6), ((1,), (2,), (8,)), (0.5, pytest.approx(-0.1), pytest.approx(-0.4)), 1.0, 4)
    ]
    assert comparisons(rows[::-1], 4) == found
    assert Comparison.from_dict(found[0].as_dict()) == found[0]


def test_the_loss_is_the_divergence_from_the_better_planner(trainer, planned):
    prompt, plans = planned
    worth, eta, temperature = (0.3, 0.1, 0.0), 0.2, 0.6
    batch = [Comparison("q", prompt, plans, worth, temperature, 0)]
    logp = scores(trainer, prompt, plans, temperature)
    p, q = (np.exp(x) / np.exp(x).sum() for x in (logp, np.array(worth) / eta))
    found = float(preference_loss(Reader(trainer.model), batch, eta, CPU).detach())
    assert found == pytest.approx(float((q * np.log(q / p)).sum()), rel=1e-4)
    lengths = np.array([len(plan) for plan in plans])
    more = float(preference_loss(Reader(trainer.model), batch, eta, CPU, nll=0.5).detach())
    assert more - found == pytest.approx(-0.5 * float((q * logp / lengths).sum()), rel=1e-4)


def test_a_planner_that_is_already_right_gets_no_gradient_and_batching_changes_nothing(trainer, planned):
    prompt, plans = planned
    eta = 0.25
    right = tuple(float(x) for x in eta * scores(trainer, prompt, plans))
    settled = Comparison("q", prompt, plans, right, 1.0, 0)
    other = Comparison("z", prompt[:-1], plans[:2], (1.0, 0.0), 0.7, 0)
    reader = Reader(trainer.model)
    loss = preference_loss(reader, [settled], eta, CPU)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert max(float(p.grad.abs().max()) for p in trainer.model.parameters() if p.grad is not None) < 1e-4
    both = float(preference_loss(reader, [settled, other], eta, CPU).detach())
    assert both == pytest.approx(
        float(loss.detach()) + float(preference_loss(reader, [other], eta, CPU).detach()), abs=1e-4
    )


def test_a_rare_plan_that_is_better_is_learned_where_the_policy_gradient_hardly_moves():
    """Softmax over three plans, the best of them at probability 1e-3: one step on each objective."""
    start = torch.tensor([0.0, -0.5, -7.0])
    reward = torch.tensor([0.0, 0.0, 1.0])
    p = torch.softmax(start, 0)
    policy_gradient = p * (reward - (p * reward).sum())
    toward = torch.softmax(reward / 0.1, 0) - p
    assert float(p[2]) < 1e-3
    assert float(toward[2]) > 500 * float(policy_gradient[2])


def rows_of_update(planned):
    prompt, plans = planned
    return [row("a", plans[0], 1.0, prompt=prompt), row("b", plans[1], 0.0, prompt=prompt)]


def test_an_update_learns_the_plan_that_was_better_and_remembers_for_a_while(planned, monkeypatch, tmp_path):
    prompt, plans = planned
    config = PPOConfig(
        estimator="tree", plan_temperature=0.1, plan_memory=2, learning_rate=3e-4, minibatches=2, logprob_tolerance=None
    )
    trainer = PPOTrainer(TINY, config, device="cpu")
    before = scores(trainer, prompt, plans)
    monkeypatch.setattr("jade_training.trainer.rows_of", lambda *_, **__: rows_of_update(planned))
    metrics = [trainer.update([], {}) for _ in range(3)]
    after = scores(trainer, prompt, plans)
    assert after[0] - after[1] > before[0] - before[1] + 0.3
    assert metrics[2]["plan_kl"] < metrics[0]["plan_kl"]
    assert metrics[0]["rows"] == 0
    assert [c.update for c in trainer.comparisons] == [1, 2]

    trainer.save_checkpoint(tmp_path / "checkpoint")
    other = PPOTrainer(TINY, config, device="cpu")
    other.load_checkpoint(tmp_path / "checkpoint")
    assert other.comparisons == trainer.comparisons
    one, two = trainer.update([], {}), other.update([], {})
    assert {k: v for k, v in one.items() if k not in ("seconds", "tokens_per_s")} == {
        k: v for k, v in two.items() if k not in ("seconds", "tokens_per_s")
    }
    for name, tensor in trainer.named_trainable().items():
        assert torch.equal(tensor, other.named_trainable()[name])


def test_without_a_plan_temperature_plans_are_rows_like_others(planned, monkeypatch):
    trainer = PPOTrainer(TINY, PPOConfig(estimator="tree", logprob_tolerance=None), device="cpu")
    monkeypatch.setattr("jade_training.trainer.rows_of", lambda *_, **__: rows_of_update(planned))
    metrics = trainer.update([], {})
    assert metrics["rows"] == 2
    assert metrics["plan_kl"] == 0.0
    assert not trainer.comparisons
    assert math.isfinite(metrics["policy_loss"])
