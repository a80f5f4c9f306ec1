"""Metrics to MLflow, for who asked for it.

Invariant: MLflow is imported only when asked for, and nothing is traced in rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Log = Callable[[Mapping[str, Any], int], None]


@contextmanager
def tracked(wanted: bool, name: str) -> Iterator[Log]:
    """Yields a function that logs the numbers among metrics at a step; without `wanted`, one that does nothing.

    The store is MLflow's own choice (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).
    """
    if not wanted:
        yield _nowhere
        return
    import mlflow

    mlflow.set_experiment("jade-improve")
    with mlflow.start_run(run_name=name):

        def log(metrics: Mapping[str, Any], step: int) -> None:
            numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
            mlflow.log_metrics(numbers, step=step)

        yield log


def _nowhere(metrics: Mapping[str, Any], step: int) -> None:
    del metrics, step
