"""OpenTelemetry spans of runs, by the semantic conventions for generative AI.

Invariant: nothing is recorded or sent unless somebody configured the SDK or asked for it, and texts (questions,
prompts, answers, documents) only where asked for. Spans are made from a run's own record, so they say what it says;
importing this module loads no opentelemetry, and while the SDK is not configured a run pays nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.types import Run, Transition

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from jade_graph.langchain.runnable import JadeGraph

SCOPE = "jade_graph"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The conventions' own switch for texts: `true`, or a mode that puts them on spans."""
_CONTENT_ON = ("true", "span_only", "span_and_event")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

Kind = Literal["run", "step", "model", "retrieval"]
Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A span before anybody's SDK has seen it. Times are Unix nanoseconds.

    `parent` is the index of its parent in the list; None for the run, which comes first. `error` is a stable code.
    """

    kind: Kind
    name: str
    start_ns: int
    end_ns: int
    parent: int | None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None
    message: str = ""


def spans(run: Run, *, content: bool = False) -> list[Span]:
    """A run as spans: the run, each action of it as a step, and below each step what it called.

    Args:
        content: also questions, prompts, actions, documents.
    """
    start = int(run.started_at * 1e9)
    out = [
        Span("run", f"invoke_agent {run.preset}", start, start + int(run.wall_ms * 1e6), None, _of_run(run, content),
             run.error, run.error_message if content else "")
    ]  # fmt: skip
    for t in run.transitions:
        began = start + int(t.started_ms * 1e6)
        ended = began + int(t.latency_ms * 1e6)
        step = len(out)
        out.append(Span("step", f"step {t.role}", began, ended, 0, _of_step(t, content), t.error))
        if t.role == "R":
            name = f"retrieval {t.corpus_id}" if t.corpus_id else "retrieval"
            out.append(Span("retrieval", name, began, ended, step, _of_retrieval(t, content), t.error))
        elif t.prompt_token_ids:
            name = f"chat {t.backbone_version}"
            out.append(Span("model", name, began, ended, step, _of_model(t, content), t.error))
    return out


def _of_run(run: Run, content: bool) -> dict[str, Value]:
    out: dict[str, Value] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": SCOPE,
        "gen_ai.agent.name": run.preset,
        "gen_ai.agent.id": run.graph_hash,
        "gen_ai.request.model": run.backbone_version,
        "gen_ai.request.seed": run.seed,
        "gen_ai.response.id": run.id,
        "gen_ai.usage.input_tokens": run.counters.prompt_tokens,
        "gen_ai.usage.output_tokens": run.counters.action_tokens,
        "jade.run_id": run.id,
        "jade.attempt": run.attempt,
        "jade.plan": run.plan,
        "jade.status": run.status,
        "jade.rounds": run.counters.rounds,
        "jade.retrievals": run.counters.retrievals,
        "jade.calls": run.counters.calls,
        "jade.illegal_actions": run.illegal_actions,
    }
    if run.corpus_id:
        out["gen_ai.data_source.id"] = run.corpus_id
    if run.question_id:
        out["jade.question_id"] = run.question_id
    if content:
        out["gen_ai.input.messages"] = _messages([("user", run.question)])
        out["gen_ai.output.messages"] = _messages([("assistant", run.answer)], finish="stop")
    return out


def _of_step(t: Transition, content: bool) -> dict[str, Value]:
    out: dict[str, Value] = {
        "jade.role": t.role,
        "jade.seq": t.seq,
        "jade.trace_node": t.trace_node,
        "jade.round": t.round,
        "jade.step": t.step,
        "jade.depth": t.depth,
        "jade.plan": t.plan,
        "jade.valid": t.valid,
        "jade.fallback_used": t.fallback_used,
    }
    if t.violation is not None:
        out["jade.violation"] = t.violation
    if content and t.role != "R":
        out["jade.action"] = t.action_text
    return out


def _of_model(t: Transition, content: bool) -> dict[str, Value]:
    out: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": SCOPE,
        "gen_ai.request.model": t.backbone_version,
        "gen_ai.response.model": t.backbone_version,
        "gen_ai.response.finish_reasons": (t.finish_reason,),
        "gen_ai.usage.input_tokens": len(t.prompt_token_ids),
        "gen_ai.usage.output_tokens": len(t.action_token_ids),
        "jade.queue_ms": t.queue_ms,
    }
    asked = {"temperature": float, "top_p": float, "max_new_tokens": int, "seed": int}
    names = {"max_new_tokens": "max_tokens"}
    for name, kind in asked.items():
        if (value := t.sampling.get(name)) is not None:
            out[f"gen_ai.request.{names.get(name, name)}"] = kind(value)
    if content:
        out["gen_ai.input.messages"] = _messages([(m.role, m.content) for m in t.prompt_messages])
        out["gen_ai.output.messages"] = _messages([("assistant", t.action_text)], finish=t.finish_reason)
    return out


def _of_retrieval(t: Transition, content: bool) -> dict[str, Value]:
    found = t.parsed.get("documents", ()) if isinstance(t.parsed, Mapping) else ()
    out: dict[str, Value] = {"gen_ai.operation.name": "retrieval", "jade.documents": len(found)}
    if t.corpus_id:
        out["gen_ai.data_source.id"] = t.corpus_id
    if content:
        out["gen_ai.retrieval.query.text"] = "\n".join(m.content for m in t.prompt_messages)
        told = [{"id": d["id"], "score": d["score"], "content": d.get("text", "")} for d in found]
        out["gen_ai.retrieval.documents"] = json.dumps(told, ensure_ascii=False)
    return out


def _messages(messages: Iterable[tuple[str, str]], finish: str | None = None) -> str:
    """Messages in the conventions' JSON."""
    more = {"finish_reason": finish} if finish else {}
    told = [{"role": role, "parts": [{"type": "text", "content": text}], **more} for role, text in messages]
    return json.dumps(told, ensure_ascii=False)


def content_wanted(env: Mapping[str, str] | None = None) -> bool:
    return (os.environ if env is None else env).get(CONTENT, "").strip().lower() in _CONTENT_ON


# --- while runs are made ----------------------------------------------------------------------------------------------
def configure() -> bool:
    """Configure the SDK where the standard variables name an OTLP endpoint and nobody has: for `jade serve`.

    Returns whether the SDK is configured now.
    """
    env = os.environ
    off = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    if not _configured() and not off and any(env.get(name) for name in _ENDPOINTS):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=_resource())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    return _configured()


def tracing(provider: Any = None) -> Tracing | None:
    """What makes spans of runs; None where the SDK is not configured and no `provider` is given."""
    if provider is None and not _configured():
        return None
    from opentelemetry import trace

    from jade_graph.settings.manifest import version

    return Tracing(trace.get_tracer(SCOPE, version(), tracer_provider=provider), content=content_wanted())


def _configured() -> bool:
    """Whether the process has a tracer provider of the SDK: who has not imported the SDK cannot have one."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return False
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    return isinstance(trace.get_tracer_provider(), TracerProvider)


@dataclass(frozen=True, slots=True)
class Tracing:
    """Makes spans of runs while they are made.

    The run's span is current while the run goes on, so that spans of others (an HTTP client's) stand below it; the
    steps are added when it has ended.
    """

    tracer: Tracer
    content: bool = False

    async def run(self, graph: JadeGraph, question: str, **options: Any) -> Run:
        """`graph.arun` within a span. A cancelled run's span ends as an error."""
        from opentelemetry import trace

        name = f"invoke_agent {graph.preset.name}"
        with self.tracer.start_as_current_span(
            name, start_time=time.time_ns(), record_exception=False, set_status_on_exception=False
        ) as root:
            try:
                run = await graph.arun(question, **options)
            except BaseException as error:
                cancelled = type(error).__name__ == "CancelledError"
                _fail(root, "CANCELLED" if cancelled else getattr(error, "error_code", type(error).__name__), "")
                raise
            if root.is_recording():
                self._record(root, trace.set_span_in_context(root), spans(run, content=self.content))
        return run

    def _record(self, root: Any, context: Any, made: Sequence[Span]) -> None:
        from opentelemetry import trace

        root.set_attributes(dict(made[0].attributes))
        if made[0].error:
            _fail(root, made[0].error, made[0].message)
        contexts = {0: context}
        for i, span in enumerate(made[1:], 1):
            assert span.parent is not None
            child = self.tracer.start_span(
                span.name,
                context=contexts[span.parent],
                kind=_kind(span.kind),
                attributes=dict(span.attributes),
                start_time=span.start_ns,
            )
            if span.error:
                _fail(child, span.error, span.message)
            child.end(span.end_ns)
            contexts[i] = trace.set_span_in_context(child)


def _fail(span: Any, code: str, message: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, message or code))
    span.set_attribute("error.type", code)


def _kind(kind: Kind) -> Any:
    """Calls of a model or a corpus are client spans by the conventions, in the process or not."""
    from opentelemetry.trace import SpanKind

    return SpanKind.CLIENT if kind in ("model", "retrieval") else SpanKind.INTERNAL


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    from jade_graph.settings.manifest import version

    own = {"service.version": version()}
    return Resource.create(own if os.environ.get("OTEL_SERVICE_NAME") else {**own, "service.name": "jade-graph"})


# --- from the record --------------------------------------------------------------------------------------------------
def sampled(run_id: str, share: float) -> bool:
    """Whether a run is among a share of all runs: always the same ones."""
    return int.from_bytes(_hash("sample", run_id), "big") < share * 2**64


def readable(made: Sequence[Span], run: Run) -> list[Any]:
    """Spans of the SDK whose ids follow from the run's: sent twice, they are the same spans."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    from jade_graph.settings.manifest import version

    key = f"{run.id}/{run.attempt}"
    trace_id = int.from_bytes(_hash("trace", key) + _hash("trace2", key), "big")
    flags = TraceFlags(TraceFlags.SAMPLED)
    contexts = [
        SpanContext(trace_id, int.from_bytes(_hash("span", key, i), "big"), False, flags) for i in range(len(made))
    ]
    resource, scope = _resource(), InstrumentationScope(SCOPE, version())
    out = []
    for span, context in zip(made, contexts, strict=True):
        failed = {"error.type": span.error} if span.error else {}
        status = Status(StatusCode.ERROR, span.message or span.error) if span.error else Status(StatusCode.UNSET)
        out.append(
            ReadableSpan(
                span.name,
                context=context,
                parent=None if span.parent is None else contexts[span.parent],
                resource=resource,
                attributes={**span.attributes, **failed},
                kind=_kind(span.kind),
                status=status,
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=scope,
            )
        )
    return out


def _hash(*parts: object) -> bytes:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()


__all__ = ["Span", "Tracing", "configure", "content_wanted", "readable", "sampled", "spans", "tracing"]
