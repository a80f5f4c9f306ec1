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
            return f"<answer>{question.answers[0]}</answer>"
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
        `{"single_shot": figures, "oracle": figures or None, "questions", "decomposed"}`, figures as in
        `bounds.retrieval_figures`; the oracle is None where the data set has no decompositions.

    Raises:
        DataError: ORACLE_RUN when a run fails or an action of the oracle is illegal: the figures would not be bounds.
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
    decomposed = sum(bool(q.decomposition) for q in dataset.questions)
    total = len(dataset.questions) * (2 if decomposed else 1)
    done = 0

    async def retrieved(plan: str | None) -> list[list[Passage]]:
        nonlocal done
        found: dict[str, list[Passage]] = {}
        async for run in graph.arun_many(dataset.questions, concurrency=concurrency, plan=plan):
            found[run.question_id] = _passages(run, depth)
            done += 1
            if progress is not None:
                progress(done, total)
        return [found[q.id] for q in dataset.questions]

    single = retrieval_figures(dataset.questions, await retrieved("R,AG"), budget=budget)
    oracle = retrieval_figures(dataset.questions, await retrieved(None), budget=budget) if decomposed else None
    return {
        "single_shot": single,
        "oracle": oracle,
        "questions": len(dataset.questions),
        "decomposed": decomposed,
    }


def _passages(run: Run, k: int) -> list[Passage]:
    """What a run's searches brought, once it is sure that nothing but retrieval can have failed."""
    illegal = next((t for t in run.transitions if t.violation), None)
    if run.status != "answered" or illegal is not None:
        reason = run.error or f"{illegal.role} wrote {illegal.action_text!r} ({illegal.violation})"  # type: ignore[union-attr]
        raise DataError(f"the oracle's run of question {run.question_id!r} is no bound: {reason}.", code="ORACLE_RUN")
    return retrieved_passages(run, k)
