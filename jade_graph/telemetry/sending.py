"""Recorded runs to somebody else's trace store: an OTLP receiver, or MLflow.

Invariant: runs are read from the run store and sent by whoever asks for it, never while a rollout makes them. Sent
twice, a run is there once: OTLP spans have ids that follow from the run, and MLflow is asked first.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from jade_graph.errors import JadeError, UsageError
from jade_graph.registry.place import Place
from jade_graph.telemetry import assessments
from jade_graph.telemetry.spans import SCOPE, Span, readable, spans
from jade_graph.types import Run

RUN_TAG = "jade.run_id"
_RUNS_AT_ONCE = 16
_MLFLOW_TYPES = {"run": "AGENT", "step": "CHAIN", "model": "LLM", "retrieval": "RETRIEVER"}


class SendError(JadeError):
    """A trace store does not take the runs."""

    code = "SEND"


@dataclass(slots=True)
class Sent:
    """How many runs and spans were sent, how many runs were there already; assessments that are new or changed."""

    runs: int = 0
    spans: int = 0
    known: int = 0
    assessments: int = 0


def to_otlp(
    runs: Iterable[Run],
    exporter: Any = None,
    *,
    endpoint: str | None = None,
    content: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Send runs to an OTLP receiver over HTTP; LangSmith and Langfuse are such receivers.

    Args:
        exporter: an OpenTelemetry span exporter instead of the OTLP one.
        endpoint: the full URL of the receiver's traces; None: the standard variables OTEL_EXPORTER_OTLP_*.
        progress: called with the number of runs sent.

    Raises:
        UsageError: SEND_MISSING. SendError: SEND_REFUSED.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as error:
        raise _missing(error, "serve") from error
    own = exporter is None
    exporter = exporter or OTLPSpanExporter(endpoint=endpoint)
    sent = Sent()
    try:
        left = iter(runs)
        while some := list(islice(left, _RUNS_AT_ONCE)):
            made = [span for run in some for span in readable(spans(run, content=content), run)]
            if exporter.export(made) is not SpanExportResult.SUCCESS:
                where = endpoint or next(filter(None, map(os.environ.get, _VARIABLES)), "http://localhost:4318")
                raise SendError(
                    f"the receiver at {where!r} did not take the spans; {sent.runs} runs were sent before.",
                    code="SEND_REFUSED",
                    hint="--endpoint http://HOST:4318/v1/traces; keys go into OTEL_EXPORTER_OTLP_HEADERS",
                )
            sent.runs, sent.spans = sent.runs + len(some), sent.spans + len(made)
            if progress is not None:
                progress(sent.runs)
    finally:
        if own:
            exporter.shutdown()
    return sent


_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def to_mlflow(
    runs: Iterable[Run],
    place: Place,
    *,
    experiment: str = "jade-runs",
    content: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Write runs as traces into an experiment of MLflow, with what people and judges said of them as assessments.

    A trace that is there already gets the assessments that it lacks.

    Args:
        place: where MLflow is; a local database is made on first use.
        progress: called with the number of runs written.

    Raises:
        RegistryError: MLflow cannot be reached. SendError: SEND_LOST, a trace did not arrive.
    """
    client = place.client  # also: is it there, and nothing is sent to MLflow's makers
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")  # it would fetch prices of models from the network
    from mlflow.tracing.client import TracingClient

    sent = Sent()
    with place.asking(), warnings.catch_warnings():
        # What MLflow imports to read a span warns about type hints of its own.
        warnings.filterwarnings("ignore", message=".*Any type hint", category=UserWarning)
        found = client.get_experiment_by_name(experiment)
        id_ = found.experiment_id if found else client.create_experiment(experiment, place.artifacts)
        traces = TracingClient(place.uri)
        written: list[str] = []
        for run in runs:
            if (known := _there(client, id_, run.id)) is not None:
                sent.known += 1
                sent.assessments += assessments.attach(traces, known, run)
                continue
            made = _of_mlflow(spans(run, content=content), run)
            traces.log_spans(id_, made)
            client.set_trace_tag(made[0].trace_id, RUN_TAG, run.id)
            sent.assessments += assessments.attach(traces, traces.get_trace_info(made[0].trace_id), run)
            written.append(run.id)
            sent.runs, sent.spans = sent.runs + 1, sent.spans + len(made)
            if progress is not None:
                progress(sent.runs)
        lost = [run_id for run_id in written if _there(client, id_, run_id) is None]
    if lost:
        raise SendError(
            f"MLflow did not keep {len(lost)} of {len(written)} traces, e.g. of run {lost[0]!r}.",
            code="SEND_LOST",
            hint="again with --verbose",
        )
    return sent


def _there(client: Any, experiment: str, run_id: str) -> Any:
    """The run's trace, without its spans; None where there is none."""
    quoted = run_id.replace("'", "")
    wanted = f"tags.`{RUN_TAG}` = '{quoted}'"
    found = client.search_traces(locations=[experiment], filter_string=wanted, max_results=1, include_spans=False)
    return found[0].info if found else None


def _of_mlflow(made: list[Span], run: Run) -> list[Any]:
    """MLflow's spans, read from OTLP as its own server reads them."""
    from mlflow.entities.span import Span as Theirs
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    more = [{"mlflow.spanType": json.dumps(_MLFLOW_TYPES[span.kind])} for span in made]
    ours = [replace(span, attributes={**span.attributes, **extra}) for span, extra in zip(made, more, strict=True)]
    encoded = encode_spans(readable(ours, run))
    found = [span for part in encoded.resource_spans for scope in part.scope_spans for span in scope.spans]
    return [Theirs.from_otel_proto(span) for span in found]


def _missing(error: ImportError, extra: str) -> UsageError:
    return UsageError(
        f"sending needs a package that is not installed: {error.name}.",
        code="SEND_MISSING",
        hint=f'pip install "jade-graph[{extra}]"',
    )


__all__ = ["SCOPE", "SendError", "Sent", "to_mlflow", "to_otlp"]
