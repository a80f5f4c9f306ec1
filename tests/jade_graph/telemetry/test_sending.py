"""Recorded runs to trace stores: once each, without texts unless asked for."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jade_graph.cli import main
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.registry.place import Place
from jade_graph.runs import feedback, tables
from jade_graph.runs.store import RunStore
from jade_graph.telemetry.sending import SendError, to_mlflow, to_otlp


@pytest.fixture
async def recorded(tmp_path, scripted, passages):
    with RunStore(tmp_path / ".jade" / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store)
        runs = [await graph.arun(f"who wrote book {i}?") for i in range(3)]
        yield store, runs


def test_every_run_is_a_trace_of_its_own(recorded):
    store, runs = recorded
    exporter, told = InMemorySpanExporter(), []
    sent = to_otlp(store.iter_runs(), exporter, progress=told.append)
    found = exporter.get_finished_spans()
    assert (sent.runs, sent.spans) == (3, len(found))
    assert len({span.context.trace_id for span in found}) == 3
    assert {s.attributes["jade.run_id"] for s in found if s.parent is None} == {run.id for run in runs}
    assert told == [3]
    assert "book" not in "".join(span.to_json() for span in found)


def test_a_receiver_that_refuses_is_an_error(recorded):
    class Refuses(InMemorySpanExporter):
        def export(self, spans):
            return SpanExportResult.FAILURE

    with pytest.raises(SendError) as caught:
        to_otlp(recorded[0].iter_runs(), Refuses(), endpoint="http://nowhere/v1/traces")
    assert caught.value.error_code == "SEND_REFUSED"
    assert "http://nowhere/v1/traces" in str(caught.value)


def test_the_command_posts_otlp_to_the_endpoint(recorded, tmp_path, monkeypatch, capsys):
    _, runs = recorded
    got = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            """Nothing on standard error."""

    monkeypatch.chdir(tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1/traces"
            assert main(["runs", "send", runs[1].id, "--to", "otlp", "--endpoint", url, "--json"]) == 0
        finally:
            server.shutdown()
            thread.join()
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["to"]) == (1, "otlp")
    [(path, body)] = got
    assert path == "/v1/traces"
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    [root] = [span for span in spans if not span.parent_span_id]
    told = {a.key: a.value for a in root.attributes}
    assert told["jade.run_id"].string_value == runs[1].id
    assert told["gen_ai.usage.input_tokens"].int_value == runs[1].counters.prompt_tokens


def test_wrong_words_are_told(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "send", "--to", "otpl", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "SEND_KIND"


@pytest.mark.slow
def test_mlflow_gets_each_run_once_with_its_tree_and_tokens(recorded, tmp_path):
    store, runs = recorded
    place = Place.find(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    sent = to_mlflow(store.iter_runs(), place, content=True)
    assert (sent.runs, sent.known) == (3, 0)
    again = to_mlflow(store.iter_runs(), place)
    assert (again.runs, again.known) == (0, 3)
    experiment = place.client.get_experiment_by_name("jade-runs").experiment_id
    traces = place.client.search_traces(locations=[experiment])
    by_run = {trace.info.tags["jade.run_id"]: trace for trace in traces}
    assert set(by_run) == {run.id for run in runs}
    trace = by_run[runs[0].id]
    names = {span.span_id: span.name for span in trace.data.spans}
    assert {(s.name, names.get(s.parent_id)) for s in trace.data.spans} >= {
        ("invoke_agent jade", None),
        ("step R", "invoke_agent jade"),
        ("retrieval numbered", "step R"),
    }
    usage = trace.info.token_usage
    counters = runs[0].counters
    assert (usage["input_tokens"], usage["output_tokens"]) == (counters.prompt_tokens, counters.action_tokens)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert abs(root.start_time_ns / 1e9 - runs[0].started_at) < 0.001
    assert "book 0" in str(root.inputs) + str(root.attributes)
    assert {span.span_type for span in trace.data.spans} == {"AGENT", "CHAIN", "LLM", "RETRIEVER"}


@pytest.mark.slow
def test_mlflow_gets_what_users_said_as_assessments_and_what_they_say_later(recorded, tmp_path):
    store, runs = recorded
    document = runs[0].documents[0].id
    feedback.add(store.engine, feedback.Feedback(runs[0].id, 1.0, used=(document,), comment="private", source="ann"))
    place = Place.find(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert to_mlflow(store.iter_runs(), place).assessments == 2
    assert to_mlflow(store.iter_runs(), place).assessments == 0
    feedback.add(store.engine, feedback.Feedback(runs[0].id, 0.0, source="bob"))
    feedback.add(store.engine, feedback.Feedback(runs[1].id, -1.0))
    again = to_mlflow(store.iter_runs(), place)
    assert (again.runs, again.known, again.assessments) == (0, 3, 2)
    experiment = place.client.get_experiment_by_name("jade-runs").experiment_id
    found = {t.info.tags["jade.run_id"]: t.info.assessments for t in place.client.search_traces(locations=[experiment])}
    told = [{a.name: a.feedback.value for a in found[run.id]} for run in runs]
    assert told == [{"user_rating": 0.5, "user_used": [document]}, {"user_rating": -1.0}, {}]
    assert {a.source.source_type for a in found[runs[0].id]} == {"HUMAN"}
    assert "ann" not in str(found)
    assert "private" not in str(found)
    with store.engine.begin() as db:
        db.execute(tables.feedback.delete().where(tables.feedback.c.run_id == runs[1].id))
    assert to_mlflow(store.iter_runs(), place).assessments == 1
    found = {t.info.tags["jade.run_id"]: t.info.assessments for t in place.client.search_traces(locations=[experiment])}
    assert [len(found[run.id]) for run in runs] == [2, 0, 0]
