"""Demonstrations of any method on microworld: what its roles saw and the oracle wrote, for a warm start.

Invariant: every pair comes from a run of the method's own graph over a real search, in which every action was legal;
its action is what the oracle writes for that prompt, also where the run had strayed. The same arguments give the same
pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from jade_graph.errors import DataError
from jade_graph.microworld.oracle import OraclePolicy
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.straying import Straying
from jade_graph.microworld.world import World
from jade_graph.types import Message, Preset, Question

logger = logging.getLogger("jade_graph")


@dataclass(frozen=True, slots=True)
class Shown:
    """A role's prompt and the action that is right for it, without the end token."""

    question_id: str
    role: str
    messages: tuple[Message, ...]
    action: str


def demonstrations(
    world: World,
    questions: Sequence[Question],
    *,
    preset: str | Preset,
    profile: str = "compact",
    k: int = 5,
    straying: float = 0.0,
    seed: int = 0,
    left_out: list[dict[str, str]] | None = None,
) -> list[Shown]:
    """One pair per language-model action, question by question in their order.

    A question whose run fails, or has an illegal action, is no demonstration; the others are.

    Args:
        straying: the share of a searching role's actions that are done wrong, though legally, so that what is right
            after a mistake is shown too; what is shown at the mistake itself is the right action. See `Straying`.
        seed: of the mistakes.
        left_out: gets the questions that are no demonstration, `{"id", "reason"}`; default: they are logged.

    Raises:
        DataError: ORACLE_RUN where no question is left.
    """
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.sync import run_sync
    from jade_graph.workflow.engine import Engine

    policy = Straying(OraclePolicy(world, questions), straying, seed)
    right = policy.righted
    graph = Engine(ScriptedBackbone(policy, profile=profile), preset=preset, retriever=WordSearch(world.passages), k=k)

    odd: dict[str, str] = {}

    async def run() -> dict[str, list[Shown]]:
        found: dict[str, list[Shown]] = {}
        async for run in graph.arun_many(questions):
            if run.status != "answered" or run.illegal_actions:
                odd[run.question_id] = f"its run is no demonstration: {run.error or 'an action is illegal'}"
                continue
            found[run.question_id] = [
                Shown(
                    run.question_id,
                    t.role,
                    t.prompt_messages,
                    right.get((t.question_id, t.trace_node, t.role, t.round), t.action_text),
                )
                for t in run.transitions
                if t.finish_reason != "tool"
            ]
        return found

    by_question = run_sync(run())
    if odd and not by_question:
        first = next(q.id for q in questions if q.id in odd)
        raise DataError(f"no question is a demonstration; {first!r}: {odd[first]}.", code="ORACLE_RUN")
    for name in (q.id for q in questions if q.id in odd):
        if left_out is None:
            logger.warning("the question %r is left out: %s", name, odd[name])
        else:
            left_out.append({"id": name, "reason": odd[name]})
    return [shown for question in questions for shown in by_question.get(question.id, ())]
