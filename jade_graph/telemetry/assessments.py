"""What people and judges said of a run, as assessments of its trace in MLflow.

Invariant: sent twice, an assessment is there once, with what is said now, and what people said is gone once they are
forgotten; one that others made is never touched. What has no value (no rating, no label) is no assessment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jade_graph.judging.reward import labels_of, usefulness
from jade_graph.runs.feedback import KEY as FEEDBACK
from jade_graph.runs.judgements import KEY as JUDGED
from jade_graph.telemetry.spans import readable, spans
from jade_graph.types import Question, Run

USERS = "jade-feedback"
"""The source of what people said: the run store's summary over all of them, without names."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """One of a trace, or of the span that `seq` (a search of the run) became.

    `by` is "HUMAN", "LLM_JUDGE" or "CODE", `who` names it.
    """

    name: str
    value: Any
    by: str
    who: str
    seq: int | None = None
    rationale: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def assessments(run: Run) -> list[Assessment]:
    """`user_rating` (-1 to 1), `user_clicked`, `user_used` (ids); `usefulness` (0 to 1) of what the run picked, and
    `passage_usefulness` of each search: label by passage.
    """
    out: list[Assessment] = []
    told = run.metadata.get(FEEDBACK)
    if isinstance(told, Mapping):
        if told.get("rating") is not None:
            ratings = {"ratings": str(told.get("ratings", 1))}
            out.append(Assessment("user_rating", float(told["rating"]), "HUMAN", USERS, metadata=ratings))
        named = {f"user_{name}": list(map(str, told.get(name) or ())) for name in ("clicked", "used")}
        out += [Assessment(name, ids, "HUMAN", USERS) for name, ids in named.items() if ids]
    judged = run.metadata.get(JUDGED)
    if isinstance(judged, Mapping):
        about = judged.get("about") or {}
        by = "CODE" if about.get("form") == "function" else "LLM_JUDGE"
        who = str(about.get("judge") or judged.get("judge") or "judge")
        metadata = {str(key): str(value) for key, value in about.items()} | {"labels": str(judged.get("judge"))}
        value = usefulness(run, Question(run.question_id, run.question))
        if value is not None:
            why = "the mean label of the passages that the run selected or cited"
            out.append(Assessment("usefulness", value, by, who, rationale=why, metadata=metadata))
        by_search: dict[int, dict[str, float]] = {}
        for (seq, passage), label in labels_of(run).items():
            if label is not None:
                by_search.setdefault(seq, {})[passage] = label
        for seq, labels in by_search.items():
            out.append(Assessment("passage_usefulness", labels, by, who, seq, metadata=metadata))
    return out


def attach(traces: Any, info: Any, run: Run) -> int:
    """Put what was said of a run onto its trace; returns how many assessments are new, changed or gone.

    Args:
        traces: MLflow's `TracingClient`. info: of the trace, with the assessments that it has.
    """
    from mlflow.entities import AssessmentSource, Feedback

    said = assessments(run)
    spans_of = _spans(run) if any(each.seq is not None for each in said) else {}
    there = {_key(each): each for each in info.assessments or () if each.feedback is not None}
    changed = 0
    for each in said:
        span = spans_of.get(each.seq) if each.seq is not None else None
        made = Feedback(
            name=each.name,
            value=each.value,
            source=AssessmentSource(source_type=each.by, source_id=each.who),
            trace_id=info.trace_id,
            rationale=each.rationale or None,
            metadata=dict(each.metadata) or None,
            span_id=span,
        )
        old = there.get(_key(made))
        if old is None:
            traces.log_assessment(info.trace_id, made)
        elif old.feedback.value != each.value or dict(old.metadata or {}) != dict(each.metadata):
            traces.update_assessment(info.trace_id, old.assessment_id, made)
        else:
            continue
        changed += 1
    now = {(each.name, each.by, each.who) for each in said}
    for (name, by, who, _), old in there.items():
        if who == USERS and (name, by, who) not in now:  # whoever said it was forgotten
            traces.delete_assessment(info.trace_id, old.assessment_id)
            changed += 1
    return changed


def _key(each: Any) -> tuple[str, str, str, str | None]:
    return each.name, each.source.source_type, each.source.source_id, each.span_id


def _spans(run: Run) -> dict[int, str]:
    """The spans of a run's searches in MLflow: their ids follow from the run."""
    made = spans(run)
    told = readable(made, run)
    return {
        int(made[span.parent].attributes["jade.seq"]): f"{real.context.span_id:016x}"  # type: ignore[arg-type]
        for span, real in zip(made, told, strict=True)
        if span.kind == "retrieval" and span.parent is not None
    }


__all__ = ["Assessment", "assessments", "attach"]
