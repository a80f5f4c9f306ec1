"""The judge benchmark: its simulation, its known truth, and that real models are measured the same way."""

from __future__ import annotations

import pytest

from jade_graph.bench import judge
from jade_graph.cli.bench import check_figures
from jade_graph.judging.cascade import Cascade
from jade_graph.judging.making import judge_cases
from jade_graph.microworld import Difficulty, make_questions, make_world


def test_one_voter_is_biased_upward_and_five_are_not():
    found = check_figures("judge", judge.run(quick=True, n=30_000, questions=60, model="none"))
    assert found["sim_passages"] == 3000
    assert abs(found["sim_mean_truth"] - 2.0) < 0.1
    # A direct call is right in .53 of cases (this noise); order and bias are those of the method's own simulation.
    assert found["sim_direct_exact"] == pytest.approx(0.53, abs=0.03)
    assert found["sim_direct_spearman"] < found["sim_cascade1_spearman"] < found["sim_cascade5_spearman"]
    assert found["sim_median5_spearman"] == pytest.approx(found["sim_cascade5_spearman"], abs=0.01)
    assert found["sim_cascade1_bias"] > 0.07 > 0.04 > abs(found["sim_cascade5_bias"])
    assert (found["sim_cascade5_calls"], found["sim_cascade1_calls"]) == (20, 4)
    assert found["world_cascade5_kappa"] > found["world_cascade1_kappa"]
    assert found["world_cascade5_calls"] <= 20
    again = {"quick": True, "n": 500, "questions": 20, "model": "none"}
    assert judge.run(**again) == judge.run(**again)


async def test_the_truth_of_a_run_is_its_gold_passages():
    world = make_world("test", 0, Difficulty(scale=0.1))
    asked = make_questions(world, 20, kinds={"1hop": 1.0, "edition": 1.0, "2hop": 1.0})
    runs = await judge.oracle_runs(world, asked)
    cases, truth = judge.known_truth(world, asked, runs)
    gold = {q.id: q.supporting for q in asked}
    for run in runs:
        mine = {p for (key, p), level in truth.items() if key[0] == run.id and level == judge.GOLD}
        assert mine <= set(gold[run.question_id])
    assert {0, 2, 4} <= set(truth.values())
    found = await judge_cases(cases, judge.NoisyJudge(truth, 0.0), Cascade())
    assert {(each.key, row.id): row.level for each in found for row in each.labels} == dict(truth)


@pytest.mark.slow
def test_a_real_model_is_measured_on_the_same_passages():
    found = judge.run(quick=True, n=1000, questions=100, model="tiny", judged=12)
    assert found["model_passages"] > 0
    assert 0 < found["model_cascade5_labelled"] <= 1
    assert found["model_direct_calls"] == 1
    assert found["model_median5_calls"] == 5
