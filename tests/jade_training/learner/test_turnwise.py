"""Advantages turn by turn: rewards of the credit mode, against other runs in the same role and turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jade_graph.scoring.rewards import Scored
from jade_graph.types import Run, Transition
from jade_training.learner.advantages import estimate
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import Row, rows_of
from jade_training.learner.turnwise import by_turn


def action(run: str, question: str, seq: int, turn: int, role: str, answer: str | None = None) -> Transition:
    return Transition(
        run_id=run, question_id=question, attempt=0, seq=seq, round=turn, step=1, depth=0, node=role, trace_node="0",
        role=role, agent_trainable=True, plan="m-ask", prompt_messages=(), prompt_token_ids=(1,), action_text="x",
        action_token_ids=(2, 0), old_logprobs=(-0.5, -0.1), sampling={"temperature": 1.0}, finish_reason="stop",
        truncated=False, parsed=None if answer is None else {"answer": answer}, valid=True, violation=None,
        fallback_used=False, counters_before={}, counters_after={}, latency_ms=1.0, backbone_version="v",
        graph_hash="g", corpus_id="c",
    )  # fmt: skip


def played(run: str, question: str, *scores: float) -> tuple[Run, Scored]:
    """A plan, then a turn of search and answer for each further score, then the search that ends."""
    rows, answers = [action(run, question, 0, 1, "KP", "x")], {0: scores[0]}
    for turn, score in enumerate(scores[1:], 2):
        rows.append(action(run, question, len(rows), turn, "KS"))
        answers[len(rows)] = score
        rows.append(action(run, question, len(rows), turn, "KA", "x"))
    rows.append(action(run, question, len(rows), len(scores) + 1, "KS"))
    found = Run(run, "Who?", question, "m-ask", 0, status="answered", answer="x", transitions=tuple(rows))
    return found, Scored(run, {"f1": scores[-1]}, tuple({} for _ in rows), answers)


def batch(*runs: tuple[Run, Scored]) -> tuple[list[Row], list[Run], dict[str, Scored]]:
    scored = {run.id: s for run, s in runs}
    return rows_of([run for run, _ in runs], scored), [run for run, _ in runs], scored


# a: the search of turn 2 gains .5, that of turn 3 gains .5.  b: it gains nothing, then the search ends in turn 3.
PAIR = batch(played("a", "q", 0.0, 0.5, 1.0), played("b", "q", 0.0, 0.0))


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        # a: KP | KS KA | KS KA | KS, b: KP | KS KA | KS. Turn 4 has one run alone: nothing to compare with.
        ("turn", {"a": [0.0, 0.5, 0.5, 0.5, 0.0, 0.0], "b": [0.0, -0.5, -0.5, -0.5]}),
        ("return_to_go", {"a": [1.0, 1.0, 1.0, 0.5, 0.0, 0.0], "b": [-1.0, -1.0, -1.0, -0.5]}),
        ("final", {"a": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], "b": [-1.0, -1.0, -1.0, -1.0]}),
    ],
)
def test_by_hand(mode: str, wanted: dict[str, list[float]]) -> None:
    rows, runs, scored = PAIR
    found = by_turn(rows, runs, scored, mode)
    assert {run: [float(a) for a, r in zip(found, rows, strict=True) if r.run_id == run] for run in "ab"} == wanted


def test_the_order_of_rows_and_runs_changes_nothing() -> None:
    rows, runs, scored = batch(*(played(f"r{i}", f"q{i % 2}", 0.0, 0.1 * i, 0.7 / (i + 1)) for i in range(6)))
    straight = dict(zip([(r.run_id, r.seq) for r in rows], by_turn(rows, runs, scored, "turn"), strict=True))
    turned = rows[::-1]
    found = by_turn(turned, runs[::-1], scored, "turn")
    assert {(r.run_id, r.seq): a for r, a in zip(turned, found, strict=True)} == straight


def test_where_no_other_run_of_the_question_came_so_far_all_other_runs_are_the_baseline() -> None:
    rows, runs, scored = batch(played("a", "q", 0.0, 1.0), played("b", "p", 0.0, 0.4))
    found = {(r.run_id, r.seq): float(a) for r, a in zip(rows, by_turn(rows, runs, scored, "turn"), strict=True)}
    assert found["a", 1] == pytest.approx(0.6)
    rows, runs, scored = batch(played("a", "q", 0.0, 1.0))
    assert not by_turn(rows, runs, scored, "turn").any()


def test_the_baseline_leaves_the_gradient_unbiased() -> None:
    """Two runs whose searches are drawn alike: over all draws, E[advantage * (a - p)] = E[reward * (a - p)]."""
    with_baseline = without = 0.0
    for good in ((1, 1), (1, 0), (0, 1), (0, 0)):
        rows, runs, scored = batch(*(played("ab"[i], "q", 0.0, 0.5 + 0.3 * g) for i, g in enumerate(good)))
        found = by_turn(rows, runs, scored, "turn")
        at = next(i for i, r in enumerate(rows) if (r.run_id, r.seq) == ("a", 1))
        with_baseline += 0.25 * (good[0] - 0.5) * float(found[at])
        without += 0.25 * (good[0] - 0.5) * (0.5 + 0.3 * good[0])
    assert with_baseline == pytest.approx(without)


def test_estimate_takes_turn_modes_whatever_compares_runs_and_leaves_the_others() -> None:
    rows, runs, scored = PAIR
    shared: dict[str, Any] = {"whitening": "none"}
    for estimator in ("tree", "rloo", "grpo"):
        found = estimate(rows, runs, scored, PPOConfig(estimator=estimator, credit="turn", **shared))
        assert np.array_equal(found.raw, by_turn(rows, runs, scored, "turn"))
    plain = estimate(rows, runs, scored, PPOConfig(estimator="rloo", **shared))
    assert set(plain.raw) == {1.0, -1.0}


def test_an_illegal_action_earns_its_penalty_alone() -> None:
    run, scored = played("a", "q", 0.0, 1.0)
    bad = replace(run.transitions[1], violation="NO_TAG", valid=False)
    run = replace(run, transitions=(run.transitions[0], bad, *run.transitions[2:]))
    scored = replace(scored, actions=({}, {"format": -0.3}, {}, {}))
    rows, runs, by_id = batch((run, scored), played("b", "q", 0.0, 1.0))
    found = by_turn(rows, runs, by_id, "turn")
    assert float(found[1]) == pytest.approx(-0.3 - 1.0)
