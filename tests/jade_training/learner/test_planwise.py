"""The planner's comparisons: what they hold, where the loss is least, what it is blind to, and that they are kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from jade_graph.backbones import TINY
from jade_training.learner.logits import Reader, pack
from jade_training.learner.planwise import Comparison, Noise, comparisons, regression_loss
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import Row
from jade_training.learner.trainer import PPOTrainer

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
        Comparison(
            "q",
            (5, 6),
            ((1,), (2,), (8,)),
            (0.5, pytest.approx(-0.1), pytest.approx(-0.4)),
            (True, True, False),
            1.0,
            4,
            root=False,
        )
    ]
    assert comparisons([replace(r, plans=True) for r in rows], 4) == [replace(found[0], root=True)]
    assert comparisons(rows[::-1], 4) == found
    assert Comparison.from_dict(found[0].as_dict()) == found[0]


@pytest.mark.parametrize(("root", "worth"), [(False, (0.25, 0.4)), (True, (0.5, 0.4))])
def test_a_parts_plan_answers_for_the_rules_that_were_broken_in_carrying_it_out(root, worth):
    rows = [row("a", (1,), 1.0, caused=-0.5), row("b", (1,), 0.0), row("c", (2,), 0.4)]
    assert comparisons([replace(r, plans=root) for r in rows], 0)[0].worth == pytest.approx(worth)


def test_the_loss_is_the_regression_of_log_probabilities_on_outcomes(trainer, planned):
    prompt, plans = planned
    worth, eta, temperature = np.array((0.3, 0.1, 0.0)), 0.2, 0.6
    batch = [Comparison("q", prompt, plans, tuple(worth), (True,) * 3, temperature, 0)]
    logp = scores(trainer, prompt, plans, temperature)
    residual = eta * (logp - logp.mean()) - (worth - worth.mean())
    found = float(regression_loss(Reader(trainer.model), batch, eta, CPU).detach())
    assert found == pytest.approx(float((residual**2).sum()) / eta, rel=1e-4)
    more = float(regression_loss(Reader(trainer.model), batch, eta, CPU, mass=0.5).detach())
    assert more - found == pytest.approx(-0.5 * float(np.log(np.exp(logp).sum())), rel=1e-3)


def test_a_planner_that_is_already_right_gets_no_gradient_and_batching_changes_nothing(trainer, planned):
    prompt, plans = planned
    eta = 0.25
    right = tuple(float(x) for x in eta * scores(trainer, prompt, plans))
    settled = Comparison("q", prompt, plans, right, (True,) * 3, 1.0, 0)
    other = Comparison("z", prompt[:-1], plans[:2], (1.0, 0.0), (True, True), 0.7, 0)
    reader = Reader(trainer.model)
    loss = regression_loss(reader, [settled], eta, CPU)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert max(float(p.grad.abs().max()) for p in trainer.model.parameters() if p.grad is not None) < 1e-3
    both = float(regression_loss(reader, [settled, other], eta, CPU).detach())
    assert both == pytest.approx(
        float(loss.detach()) + float(regression_loss(reader, [other], eta, CPU).detach()), abs=1e-4
    )


def test_what_is_no_plan_is_pushed_down_and_never_up(trainer, planned):
    prompt, plans = planned
    reader = Reader(trainer.model)

    def loss(worth, legal):
        return float(regression_loss(reader, [Comparison("q", prompt, plans, worth, legal, 1.0, 0)], 0.1, CPU).detach())

    logp = scores(trainer, prompt, plans)
    settled = tuple(0.1 * logp[:2])
    alone = loss((*settled, 0.0), (True, True, True))
    assert loss((*settled, max(settled) + 50), (True, True, False)) == pytest.approx(0, abs=1e-4)  # too rare: so be it
    low = loss((*settled, min(settled) - 3), (True, True, False))
    assert low > 1  # too frequent
    assert alone > 0
    # linear far out: no single text rules a mini-batch
    lower = loss((*settled, min(settled) - 6), (True, True, False))
    assert lower - low == pytest.approx(2 * 3 / 0.1, rel=1e-3)


def test_a_prompt_that_plans_share_is_read_once_with_the_same_gradient(trainer, planned, monkeypatch):
    prompt, plans = planned
    batch = [
        Comparison("q", prompt, plans, (0.3, 0.1, 0.0), (True, True, False), 0.6, 0),
        Comparison("z", prompt[:-2], plans[1:], (0, 1), (True, True), 1, 0),
    ]
    reader = Reader(trainer.model)
    assert reader.fast
    found = []
    for together in (True, False):
        if not together:
            monkeypatch.setattr(reader, "actions", lambda _, packed: reader(packed)[0])
        trainer.model.zero_grad()
        loss = regression_loss(reader, batch, 0.2, CPU, mass=0.1)
        loss.backward()
        found.append((float(loss.detach()), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    (ours, gradient), (theirs, plain) = found
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert torch.allclose(gradient, plain, atol=1e-4 * float(plain.abs().max()))
    assert batch[0].length(True) < batch[0].length(False) == pack(batch[0].pairs).lengths.sum() + 3 * len(prompt)


def test_a_rare_plan_that_is_better_is_learned_where_the_policy_gradient_hardly_moves():
    """Softmax over three plans, the best of them at probability 1e-3: one step on each objective."""
    start = torch.tensor([0.0, -0.5, -7.0])
    reward = torch.tensor([0.0, 0.0, 1.0])
    p = torch.softmax(start, 0)
    policy_gradient = p * (reward - (p * reward).sum())
    toward = (reward - reward.mean()) - 0.1 * (start - start.mean())
    assert float(p[2]) < 1e-3
    assert float(toward[2]) > 500 * float(policy_gradient[2])


def test_the_luck_of_single_runs_does_not_move_the_minimum():
    """A plan that earns 1 in four of ten runs, and one that always earns .2: seen run by run, 1,000 comparisons."""
    draws = np.random.default_rng(0).random(1000) < 0.4
    eta, right = 0.1, (0.4 - 0.2) / 0.1
    worth = np.stack([draws.astype(float), np.full(1000, 0.2)], axis=1)
    regressed = float((worth[:, 0] - worth[:, 1]).mean()) / eta  # where the squares have their minimum
    believed = 1 / (1 + np.exp(-(worth[:, 0] - worth[:, 1]) / eta))
    crossed = float(np.log(believed.mean() / (1 - believed.mean())))
    assert regressed == pytest.approx(right, abs=0.4)
    assert crossed < 0  # the cross-entropy to exp(R / eta) prefers the worse plan


def rows_of_update(planned):
    prompt, plans = planned
    return [row("a", plans[0], 1.0, prompt=prompt), row("b", plans[1], 0.0, prompt=prompt)]


def compared(prompt, plans=((7,), (8,)), worth=(1.0, 0.0)):
    return Comparison("q", tuple(prompt), tuple(plans), tuple(worth), (True,) * len(plans), 0.6, 0)


def test_noise_strikes_the_share_asked_for_and_nothing_that_all_prompts_have():
    ours = [compared([1, 2, *range(100 * i, 100 * i + 40 + i), 3, 4, 5]) for i in range(1, 6)]
    noise = Noise(ours, 0.25)
    struck = []
    for i, c in enumerate(ours):
        one, again, other = noise(c, i, 1), noise(c, i, 1), noise(c, i, 2)
        assert one == again != other
        assert (one.plans, one.worth, one.question_id) == (c.plans, c.worth, c.question_id)
        assert len(one.prompt) == len(c.prompt)
        assert (one.prompt[:2], one.prompt[-3:]) == ((1, 2), (3, 4, 5))
        assert set(one.prompt) <= {t for each in ours for t in each.prompt}
        struck.append(np.mean([a != b for a, b in zip(one.prompt[2:-3], c.prompt[2:-3], strict=True)]))
    assert np.mean(struck) == pytest.approx(0.25, abs=0.08)


def test_there_is_no_noise_without_a_share_or_another_prompt():
    c = compared([1, 2, 3])
    assert Noise([c, compared([1, 5, 3])], 0.0)(c, 1) is c
    assert Noise([c, c], 0.9)(c, 1) is c
    assert Noise([], 0.9)(c, 1) is c


def test_noise_does_not_depend_on_how_a_mini_batch_is_cut(planned):
    prompt, plans = planned
    batch = [compared([*prompt[:-2], 30 + i, 40 + i, *prompt[-2:]], plans[:2]) for i in range(6)]
    found = []
    for tokens in (4096, 1):
        config = PPOConfig(estimator="tree", plan_temperature=0.1, plan_noise=0.5, micro_tokens=tokens)
        trainer = PPOTrainer(TINY, config, device="cpu")
        trainer.objective.begin([])
        trainer.objective.compare(batch, 3)
        parts = [range(6)] if tokens > 1 else [[i] for i in range(6)]
        found.append(sum(float(trainer.objective.loss("plans", list(at), 6, 0).detach()) for at in parts))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_an_update_learns_the_plan_that_was_better_and_remembers_for_a_while(planned, monkeypatch, tmp_path, noise):
    prompt, plans = planned
    config = PPOConfig(
        estimator="tree",
        plan_temperature=0.1,
        plan_memory=2,
        plan_noise=noise,
        learning_rate=3e-4,
        minibatches=2,
        logprob_tolerance=None,
    )
    trainer = PPOTrainer(TINY, config, device="cpu")
    before = scores(trainer, prompt, plans)
    monkeypatch.setattr("jade_training.learner.trainer.rows_of", lambda *_, **__: rows_of_update(planned))
    metrics = [trainer.update([], {}) for _ in range(3)]
    after = scores(trainer, prompt, plans)
    assert after[0] - after[1] > before[0] - before[1] + 0.3
    assert metrics[2]["plan_loss"] < metrics[0]["plan_loss"]
    assert metrics[0]["rows"] == 0
    assert metrics[0]["gradient_tokens"] == 2 * sum(map(len, plans[:2]))
    assert [c.update for c in trainer.comparisons] == [1, 2]

    trainer.save_checkpoint(tmp_path / "checkpoint")
    other = PPOTrainer(TINY, config, device="cpu")
    other.load_checkpoint(tmp_path / "checkpoint")
    assert other.comparisons == trainer.comparisons
    about = next(p for p in (tmp_path / "checkpoint").glob("*.json") if '"comparisons"' in p.read_text())
    older = PPOTrainer(TINY, config, device="cpu")
    kept = about.read_text()
    about.write_text(kept.replace('"root": false', '"level": 1'))
    older.load_checkpoint(tmp_path / "checkpoint")
    assert not older.comparisons, "what does not say of which level it is teaches nothing"
    one, two = trainer.update([], {}), other.update([], {})
    assert {k: v for k, v in one.items() if k not in ("seconds", "tokens_per_s")} == {
        k: v for k, v in two.items() if k not in ("seconds", "tokens_per_s")
    }
    for name, tensor in trainer.named_trainable().items():
        assert torch.equal(tensor, other.named_trainable()[name])


def test_plans_and_what_carries_them_out_do_not_slow_each_other(planned, monkeypatch):
    """Each has Adam's normalisation to itself: the step on both is the sum of the steps on either."""
    prompt, _ = planned
    ours = rows_of_update(planned)
    theirs = [
        row(run, (9, 10), outcome, prompt=prompt, role="AG", plan="x") for run, outcome in (("a", 1.0), ("b", 0.0))
    ]
    config = PPOConfig(
        estimator="tree", plan_temperature=0.1, minibatches=1, learning_rate=1e-3, logprob_tolerance=None
    )

    def moved(rows):
        trainer = PPOTrainer(TINY, config, device="cpu")
        before = {n: p.detach().clone() for n, p in trainer.named_trainable().items()}
        monkeypatch.setattr("jade_training.learner.trainer.rows_of", lambda *_, **__: rows)
        metrics = trainer.update([], {})
        return {n: p.detach() - before[n] for n, p in trainer.named_trainable().items()}, metrics

    (both, metrics), (first, _), (second, _) = moved(ours + theirs), moved(ours), moved(theirs)
    assert metrics["plan_grad_norm"] > metrics["grad_norm"] > 0
    for name in both:
        assert torch.allclose(both[name], first[name] + second[name], atol=1e-6), name
    assert any(bool(step.abs().max() > 5e-4) for step in second.values())


def test_without_a_plan_temperature_plans_are_rows_like_others(planned, monkeypatch):
    trainer = PPOTrainer(TINY, PPOConfig(estimator="tree", logprob_tolerance=None), device="cpu")
    monkeypatch.setattr("jade_training.learner.trainer.rows_of", lambda *_, **__: rows_of_update(planned))
    metrics = trainer.update([], {})
    assert metrics["rows"] == 2
    assert metrics["plan_loss"] == 0.0
    assert not trainer.comparisons
    assert math.isfinite(metrics["policy_loss"])
