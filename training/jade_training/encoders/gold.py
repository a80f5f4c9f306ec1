"""Labels without people: a data set's own supporting passages, among what a search finds.

Invariant: every supporting passage has label 1, everything else that was found 0; a question whose supporting passages
are not all in the corpus is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from jade_graph.data import Dataset
from jade_graph.data.labels import Graded, Labelled
from jade_graph.retrieval.local import LocalRetriever

FOUND = 20


def gold_labels(
    dataset: Dataset,
    retriever: LocalRetriever,
    found: int = FOUND,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Labelled]:
    """One line for each question that names supporting passages: these, and the first `found` of a search."""
    known = {p.id: p for p in retriever.passages}
    asked = [q for q in dataset.questions if q.supporting and all(i in known for i in q.supporting)]
    out = []
    for number, question in enumerate(asked, start=1):
        good = set(question.supporting)
        passages = {i: known[i] for i in question.supporting}
        passages |= {p.id: p for p in retriever.search_sync(question.question, found)}
        documents = tuple(Graded(p.id, p.text, float(p.id in good), p.title) for p in passages.values())
        about = {"kind": "gold", "dataset": dataset.name, "question": question.id}
        out.append(Labelled(question.question, documents, about))
        if progress is not None:
            progress(number, len(asked))
    return out
