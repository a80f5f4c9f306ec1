"""Metrics to MLflow, for who asked for it.

Invariant: MLflow is imported only when asked for; rollouts are not traced. A learning run is one run of MLflow, however
often it is taken up again; a store that fails costs the record, not the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.settings.manifest import flattened

if TYPE_CHECKING:
    from jade_graph.registry.place import Place

Log = Callable[[Mapping[str, Any], int], None]
EXPERIMENT = "jade-improve"
RUN_ID = "mlflow-run"
"""The file in the learning run's folder that names the run of MLflow."""


@contextmanager
def tracked(
    place: Place | None,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    tell: Callable[[str], None],
    experiment: str = EXPERIMENT,
) -> Iterator[Log]:
    """Yields a function that logs the numbers among metrics at a step; without a place, one that does nothing.

    A run that was begun with these settings goes on; with others, another begins.

    Args:
        place: the registry's, so that versions and what they learned from are together.
        folder: of the learning run; its name is that of MLflow's run.
        settings: logged as parameters, nested ones with a dot.
        tell: called with where the metrics go, and with what was not taken.
        experiment: of MLflow, that a new run is in.

    Raises:
        RegistryError: REGISTRY_MISSING_PACKAGE, REGISTRY_UNREACHABLE.
    """
    if place is None:
        yield _nowhere
        return
    parameters = {name: str(value) for name, value in _named(settings)}
    client, run_id = place.client, _begun(place, folder, parameters, experiment)
    tell(f"metrics go to the run {run_id} of MLflow, {place.shown}")
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    def log(metrics: Mapping[str, Any], step: int) -> None:
        now = time.time_ns() // 1_000_000
        numbers = [(name, value) for name, value in _named(metrics) if isinstance(value, int | float)]
        try:
            client.log_batch(run_id, metrics=[Metric(name, float(value), now, step) for name, value in numbers])
        except MlflowException as error:
            tell(f"MLflow did not take the metrics of step {step}: {error}")

    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run_id, status)


def _begun(place: Place, folder: Path, parameters: Mapping[str, str], named: str) -> str:
    """The run that was begun with these parameters, if the store still has it; else a new one."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    client, path = place.client, folder / RUN_ID
    if path.exists():
        try:
            known = client.get_run(path.read_text(encoding="utf-8").strip())
        except MlflowException:
            known = None  # of another store
        if known is not None and known.info.lifecycle_stage == "active" and known.data.params == parameters:
            client.update_run(known.info.run_id, status="RUNNING")
            return str(known.info.run_id)
    with place.asking():
        experiment = client.get_experiment_by_name(named)
        number = experiment.experiment_id if experiment else client.create_experiment(named, place.artifacts)
        run_id = str(client.create_run(number, run_name=folder.name).info.run_id)
        client.log_batch(run_id, params=[Param(name, value) for name, value in parameters.items()])
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(run_id, encoding="utf-8")
    return run_id


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """By dotted names that MLflow takes, without shares of plans: one that is no longer drawn would keep its last."""
    for name, value in flattened(values):
        if "plans" not in name.split("."):
            yield "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name), value


def _nowhere(metrics: Mapping[str, Any], step: int) -> None:
    del metrics, step
