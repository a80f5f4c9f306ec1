"""An oracle policy taken from a data set's own decompositions: perfect planning without a language model.

Invariant: it writes what the data set holds, in the roles' own formats, so that a run over it goes through the same
graph, parsers and retriever as a model's run; only retrieval can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import DataError
from jade_graph.scoring.bounds import RECALL_AT, retrieval_figures
from jade_graph.scoring.retrieved import retrieved_passages
from jade_graph.types import Ask, Limits, Passage, Question, Retriever, Run
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.plans import workflow

if TYPE_CHECKING:
    from jade_graph.data import Dataset

_WIDTH = 12  # the longest decomposition that data sets have, and some


class DecompositionOracle:
    """Decomposes serially where the data set does, retrieves for every sub-question, answers it with the gold.

    Args:
        questions: those that will be asked; asks are matched by question id.
    """

    def __init__(self, questions: Iterable[Question]) -> None:
        self._by_id = {q.id: q for q in questions}

    def __call__(self, ask: Ask) -> str:
        """The action. Raises `DataError` ORACLE_QUESTION, ORACLE_ROLE."""
        question = self._by_id.get(ask.question_id)
        if question is None:
            raise DataError(f"the oracle does not know the question {ask.question_id!r}.", code="ORACLE_QUESTION")
        if ask.role == "PL":
            return workflow("QDS" if ask.view.level == "root" and question.decomposition else "R,AG")
        if ask.role == "QDS":
            parts = enumerate(question.decomposition, 1)
            return "".join(f"<q{i}>{part.question}</q{i}>" for i, part in parts)
        if ask.role == "AG" and ask.view.level == "sub":
            index = int(ask.trace_node.rpartition(".")[2]) - 1
            return f"<answer>{question.decomposition[index].answer}</answer>"
        if ask.role in ("AG", "AS"):
            return f"<answer>{question.answers[0] if question.answers else 'unknown'}</answer>"
        raise DataError(f"the oracle has no action for the role {ask.role!r}.", code="ORACLE_ROLE", known=["PL", "QDS"])


async def graph_bounds(
    dataset: Dataset,
    retriever: Retriever,
    *,
    budget: int = 5,
    concurrency: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """What decomposition can gain on a data set, run through the graph itself.

    Every question is answered twice by the oracle: with the plan R,AG, and with the data set's own decomposition. The
    ranked lists of a run's searches are interleaved and cut at the budget, so that both sides show as many passages.

    Returns:
        `{"single_shot": figures, "oracle": figures or None, "questions", "decomposed", "left_out"}`, figures as in
        `bounds.retrieval_figures`; the oracle is None where the data set has no decompositions. `left_out` names the
        questions that are in none of the figures, `{"id", "reason"}`: a run of theirs failed, or an action of the
        oracle was illegal (two equal steps, say), and they would be no bounds.

    Raises:
        DataError: ORACLE_RUN when no question is left.
    """
    options = {"QDS": {"max_items": _WIDTH, "max_new_tokens": 2000}, "AG": {"max_words": 400, "max_new_tokens": 2000}}
    preset = replace(plugins.load("jade.presets", "jade"), role_options={**options, "AS": options["AG"]})
    limits = Limits(rounds=_WIDTH + 2, depth=1, sub_questions=_WIDTH, tokens=10**9, deadline_s=600,
                    decomposition_width=_WIDTH)  # fmt: skip
    depth = max(*RECALL_AT, budget)
    graph = Engine(
        ScriptedBackbone(DecompositionOracle(dataset.questions), max_context=10**9),
        preset=preset, retriever=retriever, limits=limits, k=depth,
    )  # fmt: skip
    plans: list[str | None] = ["R,AG", None] if any(q.decomposition for q in dataset.questions) else ["R,AG"]
    total = len(dataset.questions) * len(plans)
    done = 0
    odd: dict[str, str] = {}

    async def retrieved(plan: str | None) -> dict[str, list[Passage]]:
        nonlocal done
        found: dict[str, list[Passage]] = {}
        async for run in graph.arun_many(dataset.questions, concurrency=concurrency, plan=plan):
            if (reason := _no_bound(run)) is not None:
                odd.setdefault(run.question_id, reason)
            found[run.question_id] = retrieved_passages(run, depth)
            done += 1
            if progress is not None:
                progress(done, total)
        return found

    lists = [await retrieved(plan) for plan in plans]
    kept = [q for q in dataset.questions if q.id not in odd]
    if not kept:
        first = next(iter(odd))
        raise DataError(f"the oracle's run of question {first!r} is no bound: {odd[first]}.", code="ORACLE_RUN")
    sides = [retrieval_figures(kept, [side[q.id] for q in kept], budget=budget) for side in lists]
    return {
        "single_shot": sides[0],
        "oracle": sides[1] if len(sides) > 1 else None,
        "questions": len(kept),
        "decomposed": sum(bool(q.decomposition) for q in kept),
        "left_out": [{"id": q.id, "reason": odd[q.id]} for q in dataset.questions if q.id in odd],
    }


def _no_bound(run: Run) -> str | None:
    """Why a run bounds nothing; None once it is sure that nothing but retrieval can have failed."""
    illegal = next((t for t in run.transitions if t.violation), None)
    if illegal is not None:
        return f"{illegal.role} wrote {illegal.action_text!r} ({illegal.violation})"
    return None if run.status == "answered" else run.error or run.status
