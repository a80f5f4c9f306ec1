"""Evaluation: a graph over a data set, scored per question, summarised with bootstrap intervals.

Invariant: every question has one row, failed runs too. What cannot be scored (no gold answer, no gold passages) is
None and left out of that figure's mean, never counted as 0; comparisons are paired on the question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jade_graph import plugins
from jade_graph.data import Dataset
from jade_graph.errors import DataError, UsageError
from jade_graph.scoring.metrics import answer_recall, exact_match, support_recall, token_f1
from jade_graph.scoring.retrieved import retrieved_passages
from jade_graph.scoring.stats import mean_ci, paired_ci
from jade_graph.settings.config import Config
from jade_graph.settings.manifest import MATTERS, manifest, require_alike
from jade_graph.types import Question, Retriever, Run, Runner
from jade_graph.workflow.parts import limits_of

FIGURES = (
    "f1",
    "em",
    "f1_style_stripped",
    "support_recall",
    "answer_recall",
    "calls",
    "retrievals",
    "tokens",
    "latency_ms",
    "illegal_rate",
    "failed_rate",
)
BEST_LOW = frozenset({"calls", "retrievals", "tokens", "latency_ms", "illegal_rate", "failed_rate"})


@dataclass(frozen=True, slots=True)
class Row:
    """One question, answered and scored. `illegal_rate` is illegal actions per action of a role (tools apart).

    `support_recall` and `answer_recall` are over the k passages (the graph's own k) that `retrieved_passages`
    shows of the run, as in `jade bounds`. A run that retrieved nothing brought none: 0. `first_f1`
    is the score of the first answer that an action predicted, None where none was on the way. `dataset` is named where
    an evaluation has several.
    """

    question_id: str
    type: str
    run_id: str
    plan: str
    answer: str
    status: str
    error: str | None
    f1: float | None
    em: float | None
    f1_style_stripped: float | None
    support_recall: float | None
    answer_recall: float | None
    calls: float
    retrievals: float
    tokens: float
    latency_ms: float
    illegal_rate: float
    failed_rate: float
    prompt_tokens: float = 0.0
    first_f1: float | None = None
    dataset: str = ""

    @property
    def illegal_actions(self) -> float:
        return self.illegal_rate * max(self.calls, 1)


def score(run: Run, question: Question, k: int) -> Row:
    """The row of a run. A failed run scores what its (empty) answer scores."""
    golds = question.answers
    documents = retrieved_passages(run, k)
    return Row(
        question_id=question.id,
        type=question.type or "all",
        run_id=run.id,
        plan=run.plan,
        answer=run.answer,
        status=run.status,
        error=run.error,
        f1=token_f1(run.answer, golds),
        em=exact_match(run.answer, golds),
        f1_style_stripped=token_f1(run.answer, golds, style_stripped=True),
        support_recall=support_recall(documents, question.supporting, k),
        answer_recall=answer_recall(documents, golds),
        calls=run.counters.calls,
        retrievals=run.counters.retrievals,
        tokens=run.counters.tokens,
        latency_ms=run.wall_ms,
        illegal_rate=run.illegal_actions / max(run.counters.calls, 1),
        failed_rate=float(run.status == "failed"),
        prompt_tokens=run.counters.prompt_tokens,
        first_f1=next((token_f1(text, golds) for t in run.transitions if (text := t.predicted) is not None), None),
    )


async def evaluate(
    graph: Runner,
    questions: Sequence[Question],
    *,
    seed: int = 0,
    concurrency: int = 64,
    progress: Callable[[Run], None] | None = None,
    known: Mapping[str, Row] | None = None,
    keep: Callable[[Row], None] | None = None,
    **options: Any,
) -> list[Row]:
    """Answer and score every question; rows in the order of the questions.

    Args:
        known: rows by question that are there already: these are not asked again.
        keep: called with each new row as it is made.

    Raises:
        DataError: DATASET_IDS when two questions share an id, DATASET_EMPTY when there are none.
    """
    by_id = {q.id: q for q in questions}
    if not questions:
        raise DataError("there are no questions to evaluate.", code="DATASET_EMPTY")
    if len(by_id) < len(questions) or "" in by_id:
        raise DataError("every question needs an id of its own.", code="DATASET_IDS")
    rows: dict[str, Row] = {id: row for id, row in (known or {}).items() if id in by_id}
    asked = [q for q in questions if q.id not in rows]
    async for run in graph.arun_many(asked, seed=seed, concurrency=concurrency, **options):
        rows[run.question_id] = row = score(run, by_id[run.question_id], graph.k)
        if keep is not None:
            keep(row)
        if progress is not None:
            progress(run)
    return [rows[q.id] for q in questions]


def summarize(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals: `n`, `scored`, a mean per figure, `ci95` {figure: [low, high]}, `plans`."""
    out: dict[str, Any] = {"n": len(rows), "scored": sum(r.f1 is not None for r in rows)}
    intervals: dict[str, list[float]] = {}
    for name in FIGURES:
        values = [v for r in rows if (v := getattr(r, name)) is not None]
        if values:
            interval = mean_ci(values, seed=seed)
            out[name] = interval.mean
            intervals[name] = [interval.low, interval.high]
        else:
            out[name] = None
    return {**out, "ci95": intervals, "plans": plan_shares(rows)}


def plan_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Share of questions by root plan, largest first."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.plan or "none"] = counts.get(row.plan or "none", 0) + 1
    return {plan: n / len(rows) for plan, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def report(rows: Sequence[Row], manifest: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """What `jade eval --json` prints: `overall`, `by_type`, `by_dataset` (where there are several), `manifest`."""
    types, datasets = sorted({r.type for r in rows}), list(dict.fromkeys(r.dataset for r in rows))
    return {
        "overall": summarize(rows, seed=seed),
        "by_type": {t: summarize([r for r in rows if r.type == t], seed=seed) for t in types},
        **(
            {"by_dataset": {d: summarize([r for r in rows if r.dataset == d], seed=seed) for d in datasets}}
            if len(datasets) > 1
            else {}
        ),
        "manifest": dict(manifest),
    }


def in_pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The two rows of each question, in our order.

    Raises:
        UsageError: EVAL_NOT_PAIRED when the two did not answer the same questions.
    """
    other = {r.question_id: r for r in theirs}
    if set(other) != {r.question_id for r in ours}:
        raise UsageError(
            "the two evaluations did not answer the same questions.",
            code="EVAL_NOT_PAIRED",
            hint="evaluate both with the same data set, --limit and --seed",
        )
    return [(row, other[row.question_id]) for row in ours]


def compare(ours: Sequence[Row], theirs: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Paired differences ours - theirs: `{figure: {"difference", "ci95", "p"}}`, over the questions both scored.

    Raises:
        UsageError: EVAL_NOT_PAIRED.
    """
    rows, out = in_pairs(ours, theirs), dict[str, Any]()
    for name in FIGURES:
        pairs = [(a, b) for x, y in rows if (a := getattr(x, name)) is not None
                 and (b := getattr(y, name)) is not None]  # fmt: skip
        if pairs:
            paired = paired_ci([a for a, _ in pairs], [b for _, b in pairs], seed=seed)
            out[name] = {"difference": paired.difference, "ci95": [paired.low, paired.high], "p": paired.p}
    return out


def require_comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise `UsageError` MANIFEST_DIFFERS where a difference of two evaluations would not be one of the methods.

    `manifest.MATTERS` must agree. Preset, backbone, its version and the graph may differ: they are what is compared. A
    preset's own limits belong to the method, so all limits must agree only where the preset is the same.
    """
    same_preset = ours.get("preset") == theirs.get("preset")
    require_alike(ours, theirs, (*MATTERS, "limits") if same_preset else MATTERS)


def evaluation_manifest(
    config: Config,
    data: Dataset,
    retriever: Retriever,
    *,
    preset: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
) -> dict[str, Any]:
    """What an evaluation with these settings is made with; the caller adds weights and graph.

    Args:
        preset: instead of the settings'.
        limit, sample: as given by the user; None where all questions were asked.
    """
    s = config.settings
    method = preset or s.preset
    return manifest(
        dataset=data.name,
        dataset_id=data.dataset_id,
        questions=len(data.questions),
        limit=limit,
        sample=sample,
        preset=method,
        backbone=s.backbone,
        frozen_backbone=s.frozen_backbone,
        corpus_id=retriever.corpus_id,
        encoder=getattr(retriever, "encoder_id", None),
        retrieval=s.retrieval,
        rerank=s.rerank or None,
        k=s.k,
        seed=s.seed,
        sampling=asdict(s.sampling),
        constrained=s.constrained,
        limits=asdict(limits_of(plugins.load("jade.presets", method), **config.chosen("limits"))),
        limits_set=config.chosen("limits"),
    )
