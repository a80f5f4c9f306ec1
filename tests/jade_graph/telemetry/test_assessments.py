"""What was said of runs goes onto their traces: once, with what is said now."""

from __future__ import annotations

import shutil
import warnings

import pytest

from jade_graph.judging.cascade import FunctionJudge
from jade_graph.judging.cases import cases_of
from jade_graph.judging.making import judge_cases
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.registry.place import Place
from jade_graph.runs import feedback
from jade_graph.runs.feedback import Feedback
from jade_graph.runs.store import RunStore
from jade_graph.telemetry.assessments import Assessment, assessments
from jade_graph.telemetry.sending import to_mlflow


@pytest.fixture
async def recorded(tmp_path, scripted, passages):
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(PL="<workflow>R,DS,AG</workflow>"), retriever=passages, recorder=store, k=2)
        run = await graph.arun("who?")
        yield store, run


async def judged(store, chosen="p0"):
    def judge(ballot):
        return [c.passage.id for c in ballot.candidates if c.passage.id == chosen and ballot.level <= 3]

    cases = [case for run in store.iter_runs() for case in cases_of(run)]
    await judge_cases(cases, FunctionJudge(judge, f"likes {chosen}"), engine=store.engine)
    return cases[0].seq


async def test_only_what_has_a_value_is_an_assessment(recorded):
    store, run = recorded
    assert assessments(store.get(run.id)) == []
    feedback.add(store.engine, Feedback(run.id, comment="no rating"))
    assert assessments(store.get(run.id)) == []
    feedback.add(store.engine, Feedback(run.id, 0.5, clicked=("p1",), source="key-7"))
    seq = await judged(store)
    found = {each.name: each for each in assessments(store.get(run.id))}
    assert found["user_rating"] == Assessment("user_rating", 0.5, "HUMAN", "jade-feedback", metadata={"ratings": "1"})
    assert found["user_clicked"].value == ["p1"]
    assert found["usefulness"].value == 0.75  # of p0, which the selector kept
    assert (found["usefulness"].by, found["usefulness"].who) == ("CODE", "likes p0")
    assert found["usefulness"].metadata["levels"] == "5"
    assert (found["passage_usefulness"].value, found["passage_usefulness"].seq) == ({"p0": 0.75, "p1": 0.0}, seq)
    assert "key-7" not in str(list(found.values()))


@pytest.mark.slow
async def test_mlflow_has_each_once_with_what_is_said_now(recorded, tmp_path, empty_database):
    store, run = recorded
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    place = Place.find(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert to_mlflow(store.iter_runs(), place).assessments == 0
    feedback.add(store.engine, Feedback(run.id, 1.0, source="ann"))
    await judged(store)
    assert to_mlflow(store.iter_runs(), place).assessments == 3  # the trace was there before
    assert to_mlflow(store.iter_runs(), place).assessments == 0
    feedback.add(store.engine, Feedback(run.id, -1.0, source="bob"))
    assert to_mlflow(store.iter_runs(), place).assessments == 1
    experiment = place.client.get_experiment_by_name("jade-runs").experiment_id
    [trace] = place.client.search_traces(locations=[experiment])
    found = {each.name: each for each in trace.info.assessments}
    assert set(found) == {"user_rating", "usefulness", "passage_usefulness"}
    assert (found["user_rating"].value, found["user_rating"].source.source_type) == (0.0, "HUMAN")
    assert found["user_rating"].metadata["ratings"] == "2"
    assert found["usefulness"].value == 0.75
    spans = {span.span_id: span.name for span in trace.data.spans}
    assert spans[found["passage_usefulness"].span_id] == "retrieval numbered"
    assert found["passage_usefulness"].value == {"p0": 0.75, "p1": 0.0}
    await judged(store, "p1")  # another judge: beside the first, which stays
    assert to_mlflow(store.iter_runs(), place).assessments == 2


@pytest.mark.slow
async def test_mlflows_own_evaluation_reads_them(recorded, tmp_path, empty_database, monkeypatch):
    import mlflow
    from mlflow.genai.scorers import scorer

    store, _ = recorded
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    place = Place.find(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    await judged(store)
    to_mlflow(store.iter_runs(), place, content=True)

    @scorer
    def judged_usefulness(trace) -> float:
        return next(a.value for a in trace.info.assessments if a.name == "usefulness")

    before = mlflow.get_tracking_uri()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own
        try:
            mlflow.set_tracking_uri(place.uri)
            experiment = mlflow.set_experiment("jade-runs")
            traces = mlflow.search_traces(locations=[experiment.experiment_id])
            result = mlflow.genai.evaluate(data=traces, scorers=[judged_usefulness])
        finally:
            mlflow.set_tracking_uri(before)
    assert result.metrics["judged_usefulness/mean"] == 0.75
