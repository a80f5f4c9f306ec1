"""E2Rank's loss against values computed by hand, and against sentence-transformers' own where there is one."""

from __future__ import annotations

import math

import pytest
import torch

from jade_training.encoders.losses import infonce, ranknet

NAN = math.nan


def test_equal_scores_give_log_2() -> None:
    labels = torch.tensor([[1.0, 0.0, 0.5], [0.0, NAN, 1.0]])
    assert float(ranknet(torch.full((2, 3), 0.4), labels)) == pytest.approx(math.log(2))
    assert float(ranknet(torch.tensor([[0.3, 0.3]]), torch.tensor([[1.0, 0.0]]))) == pytest.approx(math.log(2))


def test_ranknet_by_hand() -> None:
    scores, labels = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[1.0, 0.0, 0.5]])
    pairs = [0.5 - 0.2, 0.5 - 0.1, 0.1 - 0.2]  # label 1 over 0, 1 over .5, .5 over 0
    expected = sum(math.log(1 + math.exp(-10 * d)) for d in pairs) / 3
    assert float(ranknet(scores, labels)) == pytest.approx(expected, rel=1e-5)


def test_nothing_to_rank_costs_nothing_and_has_a_gradient() -> None:
    scores = torch.tensor([[0.5, 0.2]], requires_grad=True)
    loss = ranknet(scores, torch.tensor([[1.0, NAN]])) + infonce(scores, torch.tensor([[0.0, 0.0]]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert scores.grad is not None
    assert bool(scores.grad.eq(0).all())


@pytest.mark.parametrize("seed", range(5))
def test_permuting_the_slate_changes_nothing(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand((4, 7), generator=draw)
    labels = torch.randint(0, 4, (4, 7), generator=draw) / 3
    labels[torch.rand((4, 7), generator=draw) < 0.3] = NAN
    order = torch.randperm(7, generator=draw)
    for loss in (ranknet, infonce):
        assert float(loss(scores[:, order], labels[:, order])) == pytest.approx(float(loss(scores, labels)), rel=1e-5)


def test_infonce_by_hand_with_two_positives() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.3]])
    labels = torch.tensor([[1.0, 1.0, 0.0, NAN]])  # the last belongs to another query: a negative all the same
    e = [math.exp(s / 0.03) for s in (0.9, 0.8, 0.1, 0.3)]
    expected = (-math.log(e[0] / (e[0] + e[2] + e[3])) - math.log(e[1] / (e[1] + e[2] + e[3]))) / 2
    assert float(infonce(scores, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_infonce_is_sentence_transformers_loss_where_one_is_right() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    torch.manual_seed(0)
    unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape), dim=-1)  # noqa: E731
    queries, positives, negatives = unit(4, 8), unit(4, 8), unit(4, 8)
    theirs = MultipleNegativesRankingLoss(None, scale=1 / 0.03)  # type: ignore[arg-type]
    expected = theirs.compute_loss_from_embeddings([queries, positives, negatives], torch.zeros(4))
    labels = torch.full((4, 8), NAN)
    for i in range(4):
        labels[i, i], labels[i, 4 + i] = 1.0, 0.0
    ours = infonce(queries @ torch.cat([positives, negatives]).T, labels)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)
