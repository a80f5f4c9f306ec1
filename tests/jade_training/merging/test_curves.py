"""A merge by a decay's coefficients is the run with its recorded updates weighted by that decay (WSM, theorem 3.1)."""

from __future__ import annotations

import math

import pytest
import torch

from jade_graph.errors import UsageError
from jade_training.merging.curves import DECAYS, Window, coefficients, decay_weights
from jade_training.merging.linear import combine

CURVES = ("linear", "1-sqrt", "cosine", "inverse-sqrt")


# --- the formulas -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("k", [0, 1, 2, 7, 64])
def test_coefficients_are_a_mean(decay, k):
    weights = decay_weights(decay, k)
    found = coefficients(weights)
    assert len(found) == k + 1
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)
    assert min(found) >= 0.0
    # w_i = sum of c_j from j = i on
    assert weights == pytest.approx([math.fsum(found[i:]) for i in range(1, k + 1)])


def test_the_curves_are_those_of_the_table():
    assert decay_weights("linear", 3) == pytest.approx((0.75, 0.5, 0.25))
    assert coefficients(decay_weights("linear", 3)) == pytest.approx((0.25,) * 4)
    assert decay_weights("1-sqrt", 3) == pytest.approx((0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)))
    assert decay_weights("cosine", 3) == pytest.approx((0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)))
    assert decay_weights("inverse-sqrt", 2) == pytest.approx((1 / math.sqrt(2), 1 / math.sqrt(3)))
    a = 3 / 5  # of an average over k + 1 = 4
    assert decay_weights("ema", 3) == pytest.approx((1 - a**3, 1 - a**2, 1 - a))
    assert coefficients(decay_weights("ema", 3)) == pytest.approx((a**3, 0.4 * a**2, 0.4 * a, 0.4))


def test_numbers_are_a_decay_where_they_fall():
    assert decay_weights("1,.7,.2", 3) == (1.0, 0.7, 0.2)
    assert coefficients(decay_weights(".4", 1)) == pytest.approx((0.6, 0.4))


@pytest.mark.parametrize("decay", ["1,.7", ".2,.7,.1", "1.2,.7,.1", "1,.7,-.1", "1,x,.1", "nan,.5,.1", "1,,.1"])
def test_numbers_that_rise_or_are_too_few_are_none(decay):
    with pytest.raises(UsageError) as error:
        decay_weights(decay, 3)
    assert error.value.error_code == "BAD_DECAY"
    assert repr(decay) in error.value.message


def test_an_unknown_decay_is_told_with_those_there_are():
    with pytest.raises(UsageError) as error:
        decay_weights("exponential", 3)
    assert error.value.error_code == "UNKNOWN_DECAY"
    assert "1-sqrt" in str(error.value)


@pytest.mark.parametrize("text", ["1-sqrt", "1-sqrt:", "1-sqrt:1", "1-sqrt:x", "linear:-3"])
def test_a_window_needs_a_decay_and_two_checkpoints(text):
    with pytest.raises(UsageError) as error:
        Window.parse(text)
    assert error.value.error_code == "BAD_MERGE"


def test_a_window_that_is_not_full_yet_merges_what_there_is():
    window = Window.parse("linear:4")
    assert str(window) == "linear:4"
    assert window.coefficients(1) == (1.0,)
    assert window.coefficients(3) == pytest.approx((1 / 3,) * 3)
    assert window.coefficients(9) == pytest.approx((0.25,) * 4)


# --- the theorem ------------------------------------------------------------------------------------------------------
def _run(optimiser, k=64, seed=0):
    """Checkpoints of a noisy regression in float64 at a constant rate."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.randn(7, generator=g, dtype=torch.float64)
    w = torch.nn.Parameter(torch.zeros(7, dtype=torch.float64))
    step = optimiser([w])
    found = [w.detach().clone()]
    for _ in range(k):
        x = torch.randn(8, 7, generator=g, dtype=torch.float64)
        y = x @ truth + torch.randn(8, generator=g, dtype=torch.float64)
        step.zero_grad()
        ((x @ w - y) ** 2).mean().backward()
        step.step()
        found.append(w.detach().clone())
    return found


@pytest.mark.parametrize("decay", CURVES)
@pytest.mark.parametrize(
    "optimiser",
    [lambda p: torch.optim.SGD(p, lr=0.05), lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1)],
    ids=["sgd", "adamw"],
)
def test_a_merge_is_the_replay_of_the_recorded_updates(decay, optimiser):
    checkpoints = _run(optimiser)
    weights = decay_weights(decay, len(checkpoints) - 1)
    merged = combine([{"w": c} for c in checkpoints], coefficients(weights))["w"]
    replayed = checkpoints[0].clone()
    for w, before, after in zip(weights, checkpoints, checkpoints[1:], strict=False):
        replayed += w * (after - before)
    assert float((merged - replayed).abs().max()) <= 1e-12


@pytest.mark.parametrize("decay", CURVES)
def test_where_gradients_do_not_depend_on_weights_a_merge_is_the_decayed_run(decay):
    g = torch.Generator().manual_seed(1)
    slopes = torch.randn(20, 5, generator=g, dtype=torch.float64)
    weights = decay_weights(decay, len(slopes))

    def descend(rates):
        w = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
        found = [w.detach().clone()]
        for slope, rate in zip(slopes, rates, strict=True):
            (slope @ w).backward()  # a linear loss
            with torch.no_grad():
                w -= 0.1 * rate * w.grad
            w.grad = None
            found.append(w.detach().clone())
        return found

    constant, decayed = descend([1.0] * len(slopes)), descend(weights)
    merged = combine([{"w": c} for c in constant], coefficients(weights))["w"]
    assert float((merged - decayed[-1]).abs().max()) <= 1e-12
