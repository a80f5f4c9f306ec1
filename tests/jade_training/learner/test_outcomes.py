"""What plans are expected to come to: told by the wording of a prompt, not by the luck of its own runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from jade_graph.errors import ConfigError
from jade_training.learner.objective import Objective
from jade_training.learner.outcomes import COMMON, FEWEST, expected
from jade_training.learner.planwise import Comparison
from jade_training.learner.ppo import PPOConfig

LEFT, RIGHT, RARE, NONSENSE = (1, 9), (2, 9), (3, 9), (4,)


def tried(seed: int = 0, count: int = 200) -> list[Comparison]:
    """Two wordings (10, 11) about names that occur once: LEFT is right for the first nine times in ten, else RIGHT."""
    rng, found = np.random.default_rng(seed), list[Comparison]()
    for i in range(count):
        wording = int(rng.integers(2))
        chances = (0.9, 0.1) if wording == 0 else (0.1, 0.9)
        worth = tuple(float(rng.random() < p) for p in chances)
        found.append(Comparison(f"q{i}", (5, 10 + wording, 100 + i, 6), (LEFT, RIGHT), worth, (True, True), 1.0, 0))
    return found


def test_expectations_are_those_of_the_wording() -> None:
    found = tried()
    errors, luck = [], []
    for before, after in zip(found, expected(found, 10.0), strict=True):
        truth = (0.9, 0.1) if before.prompt[1] == 10 else (0.1, 0.9)
        told = dict(zip(after.plans, after.worth, strict=True))
        errors += [told[LEFT] - truth[0], told[RIGHT] - truth[1]]
        luck += [before.worth[0] - truth[0], before.worth[1] - truth[1]]
    assert np.abs(errors).mean() < 0.12
    assert np.abs(errors).mean() < np.abs(luck).mean() / 1.4


def test_names_that_occur_once_are_no_features() -> None:
    """Two questions of one wording are told the same, whatever their own runs came to."""
    found = tried()
    told: dict[int, set[tuple[float, ...]]] = {10: set(), 11: set()}
    for c in expected(found, 10.0):
        told[c.prompt[1]].add(tuple(round(w, 9) for w in c.worth))
    assert [len(worths) for worths in told.values()] == [1, 1]


def test_every_comparison_is_told_of_every_plan_that_was_tried_enough() -> None:
    found = tried()
    half = [
        Comparison(c.question_id, c.prompt, (plan,), (worth,), (True,), 1.0, c.update)
        for i, c in enumerate(found)
        for plan, worth in [(c.plans[i % 2], c.worth[i % 2])]
    ]
    assert all(c.plans == (LEFT, RIGHT) and c.legal == (True, True) for c in expected(half, 10.0))


def test_what_pays_for_a_question_says_nothing_of_its_parts() -> None:
    """The same wordings as parts, where the other plan pays: each level is told its own."""
    roots = tried()
    parts = [replace(c, question_id=f"p{i}", worth=c.worth[::-1], root=False) for i, c in enumerate(tried(seed=1))]
    both = expected([c for pair in zip(roots, parts, strict=True) for c in pair], 10.0)
    assert both[0::2] == expected(roots, 10.0)
    assert both[1::2] == expected(parts, 10.0)
    first = next(c for c in both[1::2] if c.prompt[1] == 10)
    assert first.worth == pytest.approx((0.1, 0.9), abs=0.12)


def aged() -> list[Comparison]:
    """LEFT never worked in the first twenty updates, and always in the last twenty; RIGHT works half the time."""
    return [
        replace(c, worth=(float(i >= 100), float(i % 2)), update=i // 5) for i, c in enumerate(tried(seed=2, count=200))
    ]


def test_what_is_old_says_less() -> None:
    found = aged()
    alike, recent = expected(found, 10.0), expected(found, 10.0, halflife=4.0)
    assert np.mean([c.worth[0] for c in alike]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([c.worth[0] for c in recent]) > 0.9
    assert np.mean([c.worth[1] for c in recent]) == pytest.approx(0.5, abs=0.1)
    same = [c.worth for c in expected([replace(c, update=7) for c in found], 10.0, halflife=4.0)]
    assert same == [pytest.approx(c.worth) for c in alike]


def test_rare_plans_and_what_is_no_plan_keep_their_outcomes() -> None:
    found = tried()
    odd = Comparison("odd", (5, 10, 99, 6), (LEFT, RARE, NONSENSE), (1.0, 0.25, -0.3), (True, True, False), 1.0, 0)
    after = expected([*found, odd], 10.0)[-1]
    assert after.plans == (LEFT, RIGHT, RARE, NONSENSE)
    assert after.worth[2:] == (0.25, -0.3)
    assert after.legal == (True, True, True, False)
    assert after.worth[0] == pytest.approx(0.9, abs=0.1)


def test_illegal_texts_are_expected_nothing_of_however_often_they_were_written() -> None:
    found = [
        Comparison(c.question_id, c.prompt, (*c.plans, NONSENSE), (*c.worth, -1.0), (True, True, False), 1.0, 0)
        for c in tried()
    ]
    assert {c.worth[2] for c in expected(found, 10.0)} == {-1.0}


def test_nothing_is_smoothed_at_zero_or_with_few_comparisons() -> None:
    found = tried()
    assert expected(found, 0.0) == found
    few = found[: FEWEST - 1]
    assert expected(few, 10.0) == few
    assert expected([], 10.0) == []


def test_the_order_of_comparisons_tells_nothing() -> None:
    found = tried()
    one = {c.question_id: c for c in expected(found, 10.0)}
    for c in expected(found[::-1], 10.0):
        assert c.plans == one[c.question_id].plans
        assert c.worth == pytest.approx(one[c.question_id].worth)


def test_more_shrinkage_says_less_and_the_mean_stays() -> None:
    found = tried()
    mean = np.mean([c.worth[0] for c in found])
    spreads = []
    for shrinkage in (1.0, 100.0, 1e6):
        told = [c.worth[0] for c in expected(found, shrinkage)]
        assert np.mean(told) == pytest.approx(mean, abs=1e-6)
        spreads.append(np.std(told))
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 0.01
    assert len(found) > COMMON


@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
def test_the_planner_learns_from_expectations_where_it_is_told_to(shrinkage: float) -> None:
    config = PPOConfig(plan_temperature=0.1, plan_shrinkage=shrinkage, plan_halflife=3.0)
    objective = Objective(cast("Any", None), cast("Any", None), config, device=torch.device("cpu"))
    found = aged()
    objective.compare(found, 40)
    assert objective.plans == expected(found, shrinkage, halflife=3.0)
    assert (objective.plans == found) == (shrinkage == 0)
    assert (objective.plans == expected(found, shrinkage)) == (shrinkage == 0)


@pytest.mark.parametrize("wrong", [{"plan_shrinkage": -1.0}, {"plan_halflife": 0.0}, {"plan_halflife": -2.0}])
def test_negative_shrinkage_and_halflife_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"CONFIG_VALUE.*{next(iter(wrong))}"):
        PPOConfig(**cast("Any", wrong))
