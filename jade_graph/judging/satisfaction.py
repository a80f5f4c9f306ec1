"""Whether users will be content, from the usefulness of what a run read: logistic regression, against relevance.

Invariant: a run is judged by a model that saw no run of its question. Runs that lack a target, a label or a passage
that was read are left out and counted, never filled up with 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from jade_graph.errors import DataError, UsageError, unknown
from jade_graph.judging.agreement import resampled
from jade_graph.judging.cases import cases_of
from jade_graph.judging.reward import labels_of
from jade_graph.runs.feedback import KEY as FEEDBACK
from jade_graph.scoring.metrics import token_f1
from jade_graph.types import Run

Target = Literal["f1", "rating"]
STATISTICS = ("max", "mean", "sum", "last")
THRESHOLDS = {"f1": 0.5, "rating": 0.0}
LEAST = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One run: statistics over the passages that were read, and whether its user was content.

    `usefulness` are of the labels, `relevance` of the retriever's own scores, each as `STATISTICS`.
    """

    run_id: str
    question: str
    content: bool
    usefulness: tuple[float, ...]
    relevance: tuple[float, ...]


def rows_of(
    runs: Iterable[Run], *, target: Target = "f1", threshold: float | None = None
) -> tuple[list[Row], dict[str, int]]:
    """Rows, and how many runs were left out for which reason.

    Args:
        target: "f1": F1 of the answer is at least the threshold (.5); "rating": users' mean rating is above it (0).

    Raises:
        UsageError: JUDGE_TARGET.
    """
    if target not in get_args(Target):
        raise unknown("target", target, get_args(Target), code="JUDGE_TARGET")
    least = THRESHOLDS[target] if threshold is None else threshold
    rows: list[Row] = []
    left_out = {"no target": 0, "not judged": 0, "nothing read": 0, "without a label": 0}
    for run in runs:
        content = _content(run, target, least)
        labels = labels_of(run)
        read = [
            (case.seq, candidate.behaviour.order, candidate.passage)
            for case in cases_of(run)
            for candidate in case.candidates
            if candidate.behaviour.order is not None
        ]
        values = [labels.get((seq, passage.id)) for seq, _, passage in sorted(read, key=lambda each: each[:2])]
        scores = [passage.score for _, _, passage in sorted(read, key=lambda each: each[:2])]
        if content is None:
            left_out["no target"] += 1
        elif not labels:
            left_out["not judged"] += 1
        elif not values:
            left_out["nothing read"] += 1
        elif any(value is None for value in values):
            left_out["without a label"] += 1
        else:
            told = _statistics([value for value in values if value is not None])
            rows.append(Row(run.id, run.question_id or run.question, content, told, _statistics(scores)))
    return rows, {why: n for why, n in left_out.items() if n}


def predict(rows: Sequence[Row], *, folds: int = 5, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Cross-validated AUC from usefulness, from relevance, and the difference; and the model's coefficients.

    Folds hold questions whole, and so do the resamples of the intervals (percentile bootstrap, 95 %). Coefficients are
    per standard deviation, of a logistic regression (L2, C = 1) on usefulness.

    Raises:
        DataError: JUDGE_FEW, too few runs or questions of either kind. UsageError: JUDGE_MISSING.
    """
    linear, pipeline = _need("sklearn.linear_model"), _need("sklearn.pipeline")
    scaling, splitting = _need("sklearn.preprocessing"), _need("sklearn.model_selection")
    target = np.asarray([row.content for row in rows], dtype=np.int64)
    groups = np.asarray([row.question for row in rows])
    kinds = [len({row.question for row in rows if row.content is kind}) for kind in (True, False)]
    if len(rows) < LEAST or min(kinds) < folds:
        raise DataError(
            f"{len(rows)} runs with labels and a target, of {kinds[0]} questions with a content user and {kinds[1]} "
            f"without: at least {LEAST} runs and {folds} questions of both are needed.",
            code="JUDGE_FEW",
            hint="jade judge over more runs",
        )

    def model() -> Any:
        return pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(C=1.0, max_iter=1000))

    parts = splitting.StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    given = {
        "usefulness": np.asarray([row.usefulness for row in rows]),
        "relevance": np.asarray([row.relevance for row in rows]),
    }
    draws = resampled(list(groups), resamples, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may be of one kind alone: left out below
        split = [
            (train, test) for train, test in parts.split(target, target, groups) if len(np.unique(target[train])) == 2
        ]
        told: dict[str, Any] = {}
        for name, features in given.items():
            told[name] = np.full(len(rows), np.nan)
            for train, test in split:
                told[name][test] = model().fit(features[train], target[train]).predict_proba(features[test])[:, 1]
        fitted = model().fit(given["usefulness"], target)[-1].coef_[0]
        coefficients = [
            model().fit(given["usefulness"][drawn], target[drawn])[-1].coef_[0]
            for drawn in draws
            if len(np.unique(target[drawn])) == 2
        ]
    out: dict[str, Any] = {"n": len(rows), "questions": len(set(groups)), "content": float(target.mean())}
    by_draw = {name: [_auc(target[drawn], values[drawn]) for drawn in draws] for name, values in told.items()}
    for name, values in told.items():
        out[f"auc_{name}"], out[f"auc_{name}_ci95"] = _auc(target, values), _quantiles(by_draw[name])
    gains = [
        a - b
        for a, b in zip(by_draw["usefulness"], by_draw["relevance"], strict=True)
        if a is not None and b is not None
    ]
    out["auc_gain"], out["auc_gain_ci95"] = _difference(out), _quantiles(gains)
    out["coefficients"] = {
        name: {"value": float(fitted[i]), "ci95": _quantiles([float(c[i]) for c in coefficients])}
        for i, name in enumerate(STATISTICS)
    }
    return out


def _content(run: Run, target: Target, least: float) -> bool | None:
    if target == "rating":
        told = run.metadata.get(FEEDBACK)
        rating = told.get("rating") if isinstance(told, dict) else None
        return None if rating is None else float(rating) > least
    answers = run.metadata.get("answers") or ()
    score = token_f1(run.answer, (answers,) if isinstance(answers, str) else tuple(map(str, answers)))
    return None if score is None else score >= least


def _need(module: str) -> Any:
    """A module of scikit-learn. Raises `UsageError` JUDGE_MISSING."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"this needs a package that is not installed: {error.name}.",
            code="JUDGE_MISSING",
            hint='pip install "jade-graph[train]"',
        ) from error


def _statistics(values: Sequence[float]) -> tuple[float, ...]:
    return (max(values), sum(values) / len(values), sum(values), values[-1])


def _difference(out: dict[str, Any]) -> float | None:
    ours, theirs = out["auc_usefulness"], out["auc_relevance"]
    return None if ours is None or theirs is None else ours - theirs


def _auc(target: Any, values: Any) -> float | None:
    there = ~np.isnan(values)
    if len(np.unique(target[there])) < 2:
        return None
    return float(_need("sklearn.metrics").roc_auc_score(target[there], values[there]))


def _quantiles(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


__all__ = ["LEAST", "STATISTICS", "Row", "Target", "predict", "rows_of"]
