"""Recorded runs to somebody else's trace store: an OTLP receiver, or MLflow.

Invariant: runs are read from the run store and sent by whoever asks for it, never while a rollout makes them. Sent
twice, a run is there once: OTLP spans have ids that follow from the run, and MLflow is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jade_graph.errors import JadeError, UsageError
from jade_graph.registry.place import Place
from jade_graph.telemetry import SCOPE, Span, readable, spans
from jade_graph.types import Run

RUN_TAG = "jade.run_id"
_RUNS_AT_ONCE = 16
_MLFLOW_TYPES = {"run": "AGENT", "step": "CHAIN", "model": "LLM", "retrieval": "RETRIEVER"}


class SendError(JadeError):
    """A trace store does not take the runs."""

    code = "SEND"


@dataclass(slots=True)
class Sent:
    """How many runs and spans were sent, and how many runs were there already."""

    runs: int = 0
    spans: int = 0
    known: int = 0


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
    """Write runs as traces into an experiment of MLflow.

    Args:
        place: where MLflow is; a local database is made on first use.
        progress: called with the number of runs written.

    Raises:
        RegistryError: MLflow cannot be reached. SendError: SEND_LOST, a trace did not arrive.
    """
    client = place.client  # also: is it there, and nothing is sent to MLflow's makers
    import mlflow

    with place.asking():
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(place.uri)
        try:
            found = client.get_experiment_by_name(experiment)
            id_ = found.experiment_id if found else client.create_experiment(experiment, place.artifacts)
            sent = Sent()
            written: list[str] = []
            for run in runs:
                if _there(client, id_, run):
                    sent.known += 1
                    continue
                made = spans(run, content=content)
                _write(mlflow, id_, run, made, content)
                written.append(run.id)
                sent.runs, sent.spans = sent.runs + 1, sent.spans + len(made)
                if progress is not None:
                    progress(sent.runs)
            mlflow.flush_trace_async_logging()
            lost = [run_id for run_id in written if not _by_tag(client, id_, run_id)]
        finally:
            mlflow.set_tracking_uri(before)
    if lost:
        raise SendError(f"MLflow did not keep {len(lost)} of {len(written)} traces, e.g. of run {lost[0]!r}.",
                        code="SEND_LOST", hint="again with --verbose")  # fmt: skip
    return sent


def _there(client: Any, experiment: str, run: Run) -> bool:
    return bool(_by_tag(client, experiment, run.id))


def _by_tag(client: Any, experiment: str, run_id: str) -> Any:
    quoted = run_id.replace("'", "")
    wanted = f"tags.`{RUN_TAG}` = '{quoted}'"
    return client.search_traces(locations=[experiment], filter_string=wanted, max_results=1, include_spans=False)


def _write(mlflow: Any, experiment: str, run: Run, made: list[Span], content: bool) -> None:
    live: list[Any] = []
    for span in made:
        one = mlflow.start_span_no_context(
            span.name,
            span_type=_MLFLOW_TYPES[span.kind],
            parent_span=None if span.parent is None else live[span.parent],
            attributes=dict(span.attributes),
            tags={RUN_TAG: run.id, "jade.preset": run.preset, "jade.status": run.status} if not live else None,
            inputs=_text(span, "input") if content else None,
            experiment_id=experiment,
            start_time_ns=span.start_ns,
        )
        if span.kind == "model":
            tokens = [int(span.attributes[f"gen_ai.usage.{side}_tokens"]) for side in ("input", "output")]  # type: ignore[arg-type]
            usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
            one.set_attribute("mlflow.chat.tokenUsage", usage)
        live.append(one)
    for span, one in reversed(list(zip(made, live, strict=True))):
        outputs = _text(span, "output") if content else None
        one.end(outputs=outputs, status="ERROR" if span.error else "OK", end_time_ns=span.end_ns)


def _text(span: Span, side: str) -> Any:
    """What went in or came out, for MLflow's own columns."""
    if span.kind == "retrieval":
        return span.attributes.get("gen_ai.retrieval." + ("query.text" if side == "input" else "documents"))
    return span.attributes.get(f"gen_ai.{side}.messages")


def _missing(error: ImportError, extra: str) -> UsageError:
    return UsageError(
        f"sending needs a package that is not installed: {error.name}.",
        code="SEND_MISSING",
        hint=f'pip install "jade-graph[{extra}]"',
    )


__all__ = ["SCOPE", "SendError", "Sent", "to_mlflow", "to_otlp"]
