"""Spans of runs: their tree, their figures, and that no text leaves unless asked for."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jade_graph.errors import BackboneError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.telemetry import spans as telemetry
from tests.waiting import until

QUESTION = "who wrote the annals?"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def tree(found):
    """Names with the names of their parents."""
    names = {span.context.span_id: span.name for span in found}
    return {(span.name, names.get(span.parent.span_id) if span.parent else None) for span in found}


async def test_a_run_is_a_trace_of_steps_and_calls(exporter, provider, scripted, passages):
    graph = JadeGraph(scripted(), retriever=passages)
    run = await telemetry.tracing(provider).run(graph, QUESTION, seed=4)
    found = exporter.get_finished_spans()
    assert {span.context.trace_id for span in found} == {found[0].context.trace_id}
    assert tree(found) == {
        ("invoke_agent jade", None), ("step PL", "invoke_agent jade"), ("chat scripted", "step PL"),
        ("step R", "invoke_agent jade"), ("retrieval numbered", "step R"), ("step AG", "invoke_agent jade"),
        ("chat scripted", "step AG"),
    }  # fmt: skip
    root = next(span for span in found if span.parent is None)
    assert root.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert root.attributes["gen_ai.agent.name"] == "jade"
    assert root.attributes["gen_ai.usage.input_tokens"] == run.counters.prompt_tokens
    assert root.attributes["gen_ai.usage.output_tokens"] == run.counters.action_tokens
    calls = [span for span in found if span.name.startswith("chat")]
    assert sum(span.attributes["gen_ai.usage.input_tokens"] for span in calls) == run.counters.prompt_tokens
    assert {span.attributes["gen_ai.request.model"] for span in calls} == {"scripted"}
    assert {span.kind for span in calls} == {SpanKind.CLIENT}
    for span in found:
        assert root.start_time - 2_000_000 <= span.start_time <= span.end_time <= root.end_time + 2_000_000


async def test_no_text_is_in_a_span_unless_asked_for(exporter, provider, scripted, passages, monkeypatch):
    graph = JadeGraph(scripted(AG="<answer>Secret Name</answer>"), retriever=passages)
    await telemetry.tracing(provider).run(graph, QUESTION)
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    for text in (QUESTION, "annals", "Secret Name", "passage 0"):
        assert text not in everything
    exporter.clear()
    monkeypatch.setenv(telemetry.CONTENT, "true")
    await telemetry.tracing(provider).run(graph, QUESTION)
    found = exporter.get_finished_spans()
    root = next(span for span in found if span.parent is None)
    assert json.loads(root.attributes["gen_ai.input.messages"])[0]["parts"][0]["content"] == QUESTION
    assert json.loads(root.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == "Secret Name"
    search = next(span for span in found if span.name.startswith("retrieval"))
    assert search.attributes["gen_ai.retrieval.query.text"] == QUESTION
    assert "passage 0" in search.attributes["gen_ai.retrieval.documents"]


async def test_a_failed_and_a_cancelled_run_are_errors_with_their_codes(exporter, provider, scripted, passages):
    tracing = telemetry.tracing(provider)
    broken = scripted(AG=lambda ask: BackboneError("secret words", code="OUT_OF_MEMORY"))
    await tracing.run(JadeGraph(broken, retriever=passages), QUESTION)
    errors = {s.name: s.attributes["error.type"] for s in exporter.get_finished_spans() if "error.type" in s.attributes}
    assert errors == {
        "invoke_agent jade": "OUT_OF_MEMORY",
        "step AG": "OUT_OF_MEMORY",
        "chat scripted": "OUT_OF_MEMORY",
    }
    assert "secret words" not in "".join(span.to_json() for span in exporter.get_finished_spans())
    exporter.clear()
    graph = JadeGraph(scripted({"latency_s": 30.0}), retriever=passages)
    task = asyncio.create_task(tracing.run(graph, QUESTION))
    await until(lambda: graph.engine.contexts.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [root] = exporter.get_finished_spans()
    assert (root.status.status_code, root.attributes["error.type"]) == (StatusCode.ERROR, "CANCELLED")


async def test_a_run_stands_below_the_span_of_its_caller(exporter, provider, scripted, passages):
    with provider.get_tracer("app").start_as_current_span("app") as app:
        await telemetry.tracing(provider).run(JadeGraph(scripted(), retriever=passages), QUESTION)
    root = next(span for span in exporter.get_finished_spans() if span.name == "invoke_agent jade")
    assert root.parent.span_id == app.get_span_context().span_id


def test_nobody_configured_nothing_imported():
    script = (
        "import sys; from jade_graph.telemetry import spans as t; assert t.tracing() is None; assert not t.configure();"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_spans_from_the_record_are_the_same_every_time(scripted, passages):
    run = await JadeGraph(scripted(), retriever=passages).arun(QUESTION)
    made = telemetry.spans(run)
    first, second = (telemetry.readable(made, run) for _ in range(2))
    assert [span.to_json() for span in first] == [span.to_json() for span in second]
    assert len({span.context.span_id for span in first}) == len(made)
    other = await JadeGraph(scripted(), retriever=passages).arun(QUESTION)
    assert telemetry.readable(telemetry.spans(other), other)[0].context.trace_id != first[0].context.trace_id


def test_a_share_of_runs_is_always_the_same_share():
    ids = [f"run-{i}" for i in range(4000)]
    chosen = {run_id for run_id in ids if telemetry.sampled(run_id, 0.25)}
    assert 850 < len(chosen) < 1150
    assert chosen <= {run_id for run_id in ids if telemetry.sampled(run_id, 0.5)}
    assert all(telemetry.sampled(run_id, 1.0) for run_id in ids)
    assert not any(telemetry.sampled(run_id, 0.0) for run_id in ids)
