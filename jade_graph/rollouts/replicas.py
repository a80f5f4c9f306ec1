"""Which runs a rollout has: their ids, seeds and draws of a plan.

Invariant: all are pure functions of (rollout, seed, question, replica), the same in every process and version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from jade_graph.errors import DataError, UsageError
from jade_graph.types import Question


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a rollout, before it is run."""

    run_id: str
    question: Question
    replica: int
    seed: int
    draw: int
    plan_seed: int


def run_id_of(rollout_id: str, question_id: str, replica: int) -> str:
    """The id of a rollout's run: 32 hexadecimal digits."""
    return _hash(16, rollout_id, question_id, replica).hex()


def seed_of(seed: int, question_id: str, replica: int) -> int:
    """The seed of a rollout's run, 0 <= seed < 2^63: the same for every rollout with this seed."""
    return int.from_bytes(_hash(8, seed, question_id, replica), "big") >> 1


def planned(
    questions: Sequence[Question],
    *,
    rollout_id: str,
    runs_per_question: int = 1,
    seed: int = 0,
    runs_per_plan: int = 1,
) -> list[Planned]:
    """Every run of a rollout, in the order of the questions and then of the replicas.

    Replicas 0 .. runs_per_plan - 1 are of a question's draw 0, the next as many of draw 1, and so on.

    Raises:
        UsageError: ROLLOUT_ID, BAD_REPLICAS, EMPTY_QUESTION. DataError: DATASET_EMPTY, DATASET_IDS.
    """
    if not 0 < len(rollout_id) <= 200:
        raise UsageError(f"{rollout_id!r} is no id of a rollout.", code="ROLLOUT_ID", hint="1 to 200 characters")
    if runs_per_question < 1:
        raise UsageError(f"runs_per_question is {runs_per_question}.", code="BAD_REPLICAS", hint="runs_per_question=1")
    if runs_per_plan < 1:
        raise UsageError(f"runs_per_plan is {runs_per_plan}.", code="BAD_REPLICAS", hint="runs_per_plan=1")
    if not questions:
        raise DataError("there are no questions to run.", code="DATASET_EMPTY")
    if len({q.id for q in questions}) < len(questions) or any(not q.id for q in questions):
        raise DataError("every question needs an id of its own.", code="DATASET_IDS")
    for q in questions:
        if not q.question.strip():
            raise UsageError(f"the question {q.id!r} is empty.", code="EMPTY_QUESTION", hint="leave it out")
    return [
        Planned(
            run_id_of(rollout_id, q.id, g),
            q,
            g,
            seed_of(seed, q.id, g),
            g // runs_per_plan,
            seed_of(seed, q.id, g // runs_per_plan),
        )
        for q in questions
        for g in range(runs_per_question)
    ]


def _hash(size: int, *parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=size).digest()
