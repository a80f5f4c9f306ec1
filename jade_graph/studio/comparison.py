"""The same questions under two versions or methods, as `jade diff` compares them.

Invariant: only questions that both sides answered are compared, each with one row a side: where a side asked a question
more than once its figures are means, and its answer, plan and run are the newest. The figures are `compare_rows`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph.gate.diff import Behaviour, compare_rows
from jade_graph.scoring.evaluation import Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left_out`: questions of one side alone. `questions`: texts by id, where they are known."""

    behaviour: Behaviour
    left_out: int
    questions: Mapping[str, str]


def compare(a: Mapping[str, Row], b: Mapping[str, Row], questions: Mapping[str, str]) -> Comparison | None:
    """B against A over the questions of both; None where there is none."""
    shared = [key for key in a if key in b]
    if not shared:
        return None
    behaviour = compare_rows([a[key] for key in shared], [b[key] for key in shared])
    return Comparison(behaviour, len({*a, *b}) - len(shared), questions)


def by_question(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.question_id: row for row in rows}


def from_index(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Row], dict[str, str]]:
    """Rows of the studio's index, newest first, as one evaluation row a question; and the questions' texts.

    Runs that were asked by hand have no question id: their text stands for it.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["question_id"] or row["question"]), []).append(row)
    found = {key: _row(key, group) for key, group in groups.items()}
    return found, {key: str(group[0]["question"]) for key, group in groups.items()}


def _row(key: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    newest = runs[0]

    def mean(name: str) -> float:
        return sum(float(r[name] or 0.0) for r in runs) / len(runs)

    def scored(name: str) -> float | None:
        values = [float(r[name]) for r in runs if r[name] is not None]
        return sum(values) / len(values) if values else None

    return Row(
        question_id=key,
        type=str(newest["type"]) or "all",
        run_id=str(newest["id"]),
        plan=str(newest["plan"]),
        answer=str(newest["answer"]),
        status=str(newest["status"]),
        error=str(newest["error"]) or None,
        f1=scored("f1"),
        em=scored("em"),
        f1_style_stripped=None,
        support_recall=None,
        answer_recall=None,
        calls=mean("calls"),
        retrievals=mean("retrievals"),
        tokens=mean("tokens"),
        latency_ms=mean("wall_ms"),
        illegal_rate=sum(r["illegal"] / max(r["calls"], 1) for r in runs) / len(runs),
        failed_rate=sum(r["status"] == "failed" for r in runs) / len(runs),
    )


__all__ = ["Comparison", "by_question", "compare", "from_index"]
