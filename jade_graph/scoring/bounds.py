"""What retrieval alone allows: one search for the question, against one search per gold sub-question.

Invariant: both sides have the same passage budget and the same retriever, and no language model is involved; questions
that a figure is not defined for (yes/no answers, no gold passages) are left out of that figure, never counted as 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from jade_graph.data.dataset import Dataset
from jade_graph.retrieval.fusion import interleave
from jade_graph.scoring.metrics import answer_recall, support_recall
from jade_graph.types import Passage, Question, Retriever
from jade_graph.workflow.references import resolve_references

RECALL_AT = (2, 5, 10, 20)
_CONCURRENT = 64


def sub_queries(question: Question) -> tuple[str, ...]:
    """The data set's own sub-questions, with gold intermediate answers in the place of `#1`, `#2`, .."""
    answers = [step.answer for step in question.decomposition]
    return tuple(resolve_references(step.question, answers) for step in question.decomposition)


def retrieval_figures(
    questions: Sequence[Question], retrieved: Sequence[Sequence[Passage]], *, budget: int = 5
) -> dict[str, float | None]:
    """Percentages over questions, from the ranked passages of each.

    Returns:
        `support_recall_at_K` for K in 2, 5, 10, 20 and the budget (mean share of gold passages among the first K),
        `all_support_at_BUDGET` (share of questions with all of them), `answer_recall_at_BUDGET` (share with a gold
        answer's words in one of them). None where no question defines the figure.
    """
    out: dict[str, float | None] = {}
    for k in sorted({*RECALL_AT, budget}):
        out[f"support_recall_at_{k}"] = _percent(
            [support_recall(passages, q.supporting, k) for q, passages in zip(questions, retrieved, strict=True)]
        )
    found = [support_recall(passages, q.supporting, budget) for q, passages in zip(questions, retrieved, strict=True)]
    out[f"all_support_at_{budget}"] = _percent([None if f is None else float(f == 1.0) for f in found])
    out[f"answer_recall_at_{budget}"] = _percent(
        [answer_recall(passages[:budget], q.answers) for q, passages in zip(questions, retrieved, strict=True)]
    )
    return out


async def aretrieval_bounds(
    dataset: Dataset,
    retriever: Retriever,
    *,
    budget: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Single-shot retrieval and the oracle of the data set's own decompositions, at the same passage budget.

    The ranked lists of a question's sub-questions are interleaved rank by rank, repetitions dropped, and cut.

    Returns:
        `{"single_shot": figures, "oracle": figures or None, "questions": n, "decomposed": m, "left_out": []}`; the
        oracle is None when the data set has no decompositions, and scores a question without one as single-shot.

    Raises:
        RetrievalError: from the retriever.
    """
    depth = max(*RECALL_AT, budget)
    gate = asyncio.Semaphore(_CONCURRENT)
    done = 0

    async def one(question: Question) -> tuple[list[Passage], list[Passage]]:
        nonlocal done
        async with gate:
            asked = (question.question, *sub_queries(question))
            single, *parts = await asyncio.gather(*(retriever.search(query, depth) for query in asked))
            done += 1
            if progress is not None:
                progress(done, len(dataset.questions))
            return single, interleave(parts, depth) if parts else single

    lists = await asyncio.gather(*(one(question) for question in dataset.questions))
    decomposed = sum(bool(q.decomposition) for q in dataset.questions)
    single_shot = retrieval_figures(dataset.questions, [single for single, _ in lists], budget=budget)
    oracle = retrieval_figures(dataset.questions, [parts for _, parts in lists], budget=budget) if decomposed else None
    return {
        "single_shot": single_shot,
        "oracle": oracle,
        "questions": len(dataset.questions),
        "decomposed": decomposed,
        "left_out": [],
    }


def retrieval_bounds(
    dataset: Dataset,
    retriever: Retriever,
    *,
    budget: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """`aretrieval_bounds` for callers without an event loop."""
    return asyncio.run(aretrieval_bounds(dataset, retriever, budget=budget, progress=progress))


def _percent(values: Sequence[float | None]) -> float | None:
    scored = [value for value in values if value is not None]
    return 100.0 * sum(scored) / len(scored) if scored else None
