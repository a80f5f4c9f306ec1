from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from jade_graph.backbones.sampler import Sampler, Uniforms, move_rows
from jade_graph.types import Sampling

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0, 0.5])


def draws(count: int, **parameters: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One token and its log-probability for each of `count` seeds, over LOGITS."""
    sampler = Sampler([Sampling(max_new_tokens=1, seed=seed, **parameters) for seed in range(count)], CPU)  # type: ignore[arg-type]
    return sampler.draw(LOGITS.expand(count, -1), 0)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.5, 1.0), (1.0, 0.8), (1.7, 0.9)])
def test_draws_follow_the_distribution(temperature: float, top_p: float) -> None:
    count = 20_000
    tokens, logprobs = draws(count, temperature=temperature, top_p=top_p)
    expected = reference(LOGITS.double().numpy() / temperature, top_p)
    kept = expected > 0
    seen = np.bincount(tokens.numpy(), minlength=6)
    assert seen[~kept].sum() == 0
    assert chisquare(seen[kept], expected[kept] * count).pvalue > 1e-4
    np.testing.assert_allclose(logprobs.numpy(), np.log(expected[tokens.numpy()]), atol=1e-6)


def reference(logits: np.ndarray, top_p: float) -> np.ndarray:
    """Softmax cut to the smallest set of likeliest tokens that reaches top_p, renormalised."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    size = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
    kept = np.zeros_like(probabilities)
    kept[order[:size]] = probabilities[order[:size]]
    return kept / kept.sum()


def test_no_hidden_top_k() -> None:
    wide = torch.zeros(1, 5000).expand(4000, -1)
    sampler = Sampler([Sampling(max_new_tokens=1, seed=seed) for seed in range(4000)], CPU)
    tokens, logprobs = sampler.draw(wide, 0)
    assert len(set(tokens.tolist())) > 2500  # 5000 (1 - exp(-0.8)) = 2753 expected; a top-k of 50 would give 50
    assert logprobs == pytest.approx([-math.log(5000)] * 4000, abs=1e-5)


def test_greedy_takes_the_best_and_records_temperature_one() -> None:
    tokens, logprobs = draws(3, temperature=0.0)
    assert tokens.tolist() == [0, 0, 0]
    assert logprobs[0].item() == pytest.approx(torch.log_softmax(LOGITS, -1)[0].item(), abs=1e-6)


@given(st.integers(-(2**63), 2**64), st.integers(1, 40), st.integers(1, 40))
def test_numbers_of_a_seed_are_philox_and_begin_alike(seed: int, one: int, other: int) -> None:
    numbers = Uniforms()
    short, long = sorted((one, other))
    first, second = numbers.draw(seed, short), numbers.draw(seed, long)
    assert (first == second[:short]).all()
    assert (second == np.random.Generator(np.random.Philox(key=seed % 2**64)).random(long)).all()


def test_numbers_of_a_seed_are_fixed_for_good() -> None:
    """Seeds in recorded runs must draw the same in every later version."""
    assert Uniforms().draw(0, 2).tolist() == [0.011546754286331562, 0.24154919656271812]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_row_draws_alone_what_it_draws_in_company(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(rows, 9, generator=generator)
    samplings = [
        Sampling(
            data.draw(st.sampled_from([0.0, 0.6, 1.0, 1.8])),
            data.draw(st.sampled_from([1.0, 0.7])),
            3,
            data.draw(st.integers(0, 99)),
            data.draw(st.sampled_from([None, ((1, 2, 0), (1, 0), (3, 0))])),
        )
        for _ in range(rows)
    ]
    crowd = Sampler(samplings, CPU)
    alone = [Sampler([sampling], CPU) for sampling in samplings]
    for step in range(2):
        tokens, logprobs = crowd.draw(logits, step)
        for row, sampler in enumerate(alone):
            token, logprob = sampler.draw(logits[row : row + 1], step)
            assert token.item() == tokens[row].item()
            assert logprob.item() == pytest.approx(logprobs[row].item(), abs=1e-6)
        constrained = [row for row, s in enumerate(samplings) if s.choices]
        if any(tokens[row].item() in (0, 3) for row in constrained):
            break  # a choice ended, or can only end


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(uniform: float) -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 1.0, float("-inf")]])
    token = Sampler._invert(torch.log_softmax(logits, -1), torch.tensor([uniform], dtype=torch.float64))
    assert token.item() == (1 if uniform == 0 else 3)


def test_restricted_log_probabilities_are_those_of_the_restricted_distribution() -> None:
    sampler = Sampler([Sampling(seed=1, max_new_tokens=4, choices=((1, 0), (3, 0), (5, 0)))], CPU)
    tokens, logprobs = sampler.draw(LOGITS.unsqueeze(0), 0)
    expected = torch.log_softmax(LOGITS[[1, 3, 5]], -1)[[1, 3, 5].index(tokens.item())]
    assert logprobs.item() == pytest.approx(expected.item(), abs=1e-6)
    tokens, logprobs = sampler.draw(LOGITS.unsqueeze(0), 1)
    assert (tokens.item(), logprobs.item()) == (0, 0.0)


def test_a_forced_action_is_taken_and_has_the_probability_that_the_model_gives_it() -> None:
    rows = [Sampling(1.0, 1.0, 3, 5), Sampling(2.0, 1.0, 3, 5, forced=(4, 0)), Sampling(0.0, 1.0, 3, 5)]
    sampler, free = Sampler(rows, CPU), Sampler([rows[0]], CPU)
    logits = LOGITS.repeat(3, 1)
    for step, forced in enumerate((4, 0)):
        tokens, logprobs = sampler.draw(logits, step)
        assert tokens[1].item() == forced
        assert logprobs[1].item() == pytest.approx(torch.log_softmax(LOGITS / 2.0, -1)[forced].item(), abs=1e-6)
        assert (tokens[0].item(), tokens[2].item()) == (free.draw(logits[:1], step)[0].item(), LOGITS.argmax().item())
    sampler.drop(torch.tensor([0]), torch.tensor([2]), 2)  # the forced row stays where it is
    assert sampler.draw(logits[:2], 0)[0][1].item() == 4


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_moved_rows_keep_what_stays(stays: list[bool]) -> None:
    rows = list(range(len(stays)))
    count = sum(stays)
    holes = [row for row in rows if not stays[row] and row < count]
    movers = [row for row in rows if stays[row] and row >= count]
    moved = move_rows(torch.tensor(rows), torch.tensor(holes).long(), torch.tensor(movers).long(), count)
    assert sorted(moved.tolist()) == [row for row in rows if stays[row]]
