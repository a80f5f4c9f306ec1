"""The losses against hand-computed numbers and closed forms, and the settings."""

import math

import pytest
import torch

from jade_graph.errors import ConfigError
from jade_training.learner import ppo
from jade_training.learner.ppo import Lora, PPOConfig


def test_clipping_by_hand():
    log_ratio = torch.tensor([math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5), 0.0])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    loss, clipped = ppo.clipped_policy_loss(log_ratio, advantages, torch.ones(5), clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.0), rel=1e-6)
    assert clipped.tolist() == [True, False, False, True, False]
    half, _ = ppo.clipped_policy_loss(log_ratio, advantages, torch.ones(5), clip=0.2, off_policy=torch.full((5,), 0.5))
    assert half.item() == pytest.approx(loss.item() / 2)


def test_at_ratio_1_the_gradient_is_that_of_reinforce():
    torch.manual_seed(0)
    logits = torch.randn(6, 9, requires_grad=True)
    ids, advantages, weights = torch.randint(9, (6,)), torch.randn(6), torch.rand(6)
    new = torch.log_softmax(logits, -1)[torch.arange(6), ids]
    rows, none = torch.tensor([0, 0, 1, 1, 1, 2]), torch.zeros(3, dtype=torch.bool)
    log_ratio = ppo.log_ratios(new, new.detach(), rows, none)
    loss, clipped = ppo.clipped_policy_loss(log_ratio, advantages, weights, clip=0.2)
    reinforce = -(weights * advantages * new).sum()
    [ours] = torch.autograd.grad(loss, logits, retain_graph=True)
    [wanted] = torch.autograd.grad(reinforce, logits)
    assert torch.allclose(ours, wanted, atol=1e-7)
    assert not clipped.any()
    assert (log_ratio == 0).all()


def test_a_sequence_ratio_is_that_of_the_whole_action():
    new, old = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -1.0, -3.5])
    found = ppo.log_ratios(new, old, torch.tensor([0, 0, 1]), torch.tensor([True, False]))
    assert found.tolist() == [-0.5, -0.5, 0.5]


def test_value_loss_by_hand():
    values, old, returns = torch.tensor([2.0, 0.4]), torch.tensor([0.0, 0.5]), torch.tensor([2.0, 1.0])
    even = torch.full((2,), 0.5)
    assert ppo.value_loss(values, old, returns, even, clip=None).item() == pytest.approx(0.5 * 0.5 * 0.36)
    # the first is held at 0.5, error 1.5
    assert ppo.value_loss(values, old, returns, even, clip=0.5).item() == pytest.approx(0.25 * (2.25 + 0.36))


def test_kl_estimators_are_those_of_schulman():
    p = torch.tensor([0.5, 0.3, 0.2])
    q = torch.tensor([0.2, 0.3, 0.5])
    exact = (p * (p / q).log()).sum()
    for name in ("k1", "k3"):  # unbiased
        assert (p * ppo.kl(p.log(), q.log(), name)).sum().item() == pytest.approx(exact.item(), rel=1e-5)
    assert (ppo.kl(p.log(), q.log(), "k3") >= 0).all()
    assert ppo.kl(p.log(), q.log(), "k2")[0].item() == pytest.approx(0.5 * math.log(2.5) ** 2)
    assert ppo.full_kl(p.log()[None], q.log()[None]).item() == pytest.approx(exact.item(), rel=1e-5)
    for name in ("k1", "k2", "k3"):
        assert not ppo.kl(p.log(), p.log(), name).any()


def test_the_gradient_of_k2_is_that_of_the_kl():
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    reference = torch.tensor([0.5, 0.3, 0.2]).log()
    logs = torch.log_softmax(logits, -1)
    [wanted] = torch.autograd.grad((logs.exp() * (logs - reference)).sum(), logits, retain_graph=True)
    [ours] = torch.autograd.grad((logs.exp().detach() * ppo.kl(logs, reference, "k2")).sum(), logits)
    assert torch.allclose(ours, wanted, atol=1e-6)


def test_entropy():
    assert ppo.entropy(torch.full((1, 8), 1 / 8).log()).item() == pytest.approx(math.log(8))


def test_token_weights_sum_to_one_mean():
    lengths, rows = torch.tensor([1, 3]), torch.tensor([0, 1, 1, 1])
    one = torch.ones(2)
    by_row = ppo.token_weights(lengths, rows, one, count=2, tokens=4, normalisation="row")
    assert by_row.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    by_token = ppo.token_weights(lengths, rows, torch.tensor([2.0, 1.0]), count=2, tokens=4, normalisation="token")
    assert by_token.tolist() == pytest.approx([0.5, 0.25, 0.25, 0.25])


def test_settings_survive_json_and_refuse_nonsense():
    import json

    config = PPOConfig(entropy_coef={"PL": 0.1}, ratio={"PL": "sequence"}, lora=Lora(8, 16, ("q_proj",)))
    assert PPOConfig(**json.loads(json.dumps(config.as_dict()))) == config
    assert (config.entropy_of("PL"), config.entropy_of("AG")) == (0.1, 0.0)
    assert (config.ratio_of("PL"), config.ratio_of("AG")) == ("sequence", "token")
    for wrong in ({"estimator": "ppo"}, {"clip": 0.0}, {"gamma": 1.1}, {"ratio": "word"}, {"schedule": "linear"}):
        with pytest.raises(ConfigError) as caught:
            PPOConfig(**wrong)
        assert caught.value.error_code == "CONFIG_VALUE"


def test_the_rate_rises_and_falls():
    config = PPOConfig(schedule="linear", updates=11, warmup=1)
    assert [config.rate(i) for i in (0, 10)] == pytest.approx([0.5, 0.1])
    assert config.rate(5) == pytest.approx(0.55)
    assert PPOConfig().rate(1000) == 1.0
