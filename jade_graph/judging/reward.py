"""The reward `usefulness`: what the passages that a run picked out were judged to be worth.

Invariant: labels that are missing make it None, "unscored", and never 0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from jade_graph.judging.cases import cases_of
from jade_graph.runs.judgements import KEY
from jade_graph.types import Question, Run


def labels_of(run: Run) -> dict[tuple[int, str], float | None]:
    """Labels from 0 to 1 by search (its `seq`) and passage; None: judged, and no label came of it."""
    found = run.metadata.get(KEY)
    searches: Any = found.get("searches", ()) if isinstance(found, Mapping) else ()
    return {(s["seq"], row["id"]): row["label"] for s in searches for row in s["labels"]}


def usefulness(run: Run, question: Question) -> float | None:
    """The mean label, 0 to 1, of the passages that the run selected or cited, search by search.

    None where one of them has no label, and where the run picked none.
    """
    del question
    labels = labels_of(run)
    if not labels:
        return None
    values = []
    for case in cases_of(run, most=sys.maxsize):
        for candidate in case.candidates:
            if candidate.behaviour.chosen:
                value = labels.get((case.seq, candidate.passage.id))
                if value is None:
                    return None
                values.append(value)
    return math.fsum(values) / len(values) if values else None


__all__ = ["labels_of", "usefulness"]
