"""Metrics to MLflow, for who asked for it.

Invariant: MLflow is imported only when asked for; rollouts are not traced. A learning run is one run of MLflow
however often it is taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[Mapping[str, Any], int], None]
RUN_ID = "mlflow-run"
"""The file in the learning run's folder that names the run of MLflow."""


@contextmanager
def tracked(wanted: bool, folder: Path, settings: Mapping[str, Any], *, again: bool) -> Iterator[Log]:
    """Yields a function that logs the numbers among metrics at a step; without `wanted`, one that does nothing.

    The store is MLflow's own choice (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db), the experiment "jade-improve".

    Args:
        folder: of the learning run; its name is that of MLflow's run.
        settings: logged as parameters, nested ones with a dot.
        again: whether the folder holds iterations of these settings; else another run of MLflow begins.
    """
    if not wanted:
        yield _nowhere
        return
    import mlflow

    mlflow.set_experiment("jade-improve")
    known = _known(folder / RUN_ID) if again else None
    with mlflow.start_run(run_id=known, run_name=None if known else folder.name) as run:
        if not known:
            mlflow.log_params(dict(_flat(settings)))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RUN_ID).write_text(run.info.run_id, encoding="utf-8")

        def log(metrics: Mapping[str, Any], step: int) -> None:
            numbers = {k: float(v) for k, v in _flat(metrics) if isinstance(v, int | float)}
            # By id: the active run is each thread's own, and this is called from the thread of the event loop.
            mlflow.log_metrics(numbers, step=step, run_id=run.info.run_id)

        yield log


def _known(path: Path) -> str | None:
    """The run that was begun, if the store still has it: another store begins another."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if not path.exists():
        return None
    run_id = path.read_text(encoding="utf-8").strip()
    try:
        found = mlflow.get_run(run_id)
    except MlflowException:
        return None
    return run_id if found.info.lifecycle_stage == "active" else None


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings by dotted names, but for shares of plans: one that is no longer drawn would keep its last."""
    for key, value in values.items():
        name = before + "".join(c if c.isalnum() or c in "_-./ " else "_" for c in key)
        if key == "plans":
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _nowhere(metrics: Mapping[str, Any], step: int) -> None:
    del metrics, step
