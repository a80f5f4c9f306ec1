"""A packaged graph: what MLflow loads answers like the graph that was packaged."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jade_graph.backbones import TINY, load_backbone
from jade_graph.cli.app import run as cli
from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import make_questions, make_world
from jade_graph.registry import Registry
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.versions.package import Packaged, Recipe, package_graph

# What MLflow itself warns of while it is imported and used: none of it is ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

WORLD = make_world("test", 0)
QUESTIONS = make_questions(WORLD, 6, seed=0)
PASSAGES = WORLD.passages[:200]


@pytest.fixture(scope="module")
def packaged(registry: Registry) -> Packaged:
    recipe = Recipe("jade", "jade-tiny", k=4, limits={"rounds": 6})
    return package_graph(registry, recipe, model=TINY, passages=PASSAGES, aliases=["champion"])


@pytest.fixture
def loaded(registry: Registry, packaged: Packaged) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    try:
        yield mlflow.pyfunc.load_model("models:/jade-graph@champion")
    finally:
        mlflow.set_tracking_uri(None)  # takes it out of the environment too


def test_it_answers_like_the_graph_it_was_made_of(loaded: Any) -> None:
    import pandas as pd

    own = JadeGraph(load_backbone("tiny"), retriever=MemoryRetriever(PASSAGES), k=4)
    expected = [own.run(q.question, seed=3) for q in QUESTIONS]
    table = pd.DataFrame({"question": [q.question for q in QUESTIONS]})
    rows = loaded.predict(table, params={"seed": 3})
    assert [r["answer"] for r in rows] == [run.answer for run in expected]
    assert [r["plan"] for r in rows] == [run.plan for run in expected]
    assert {r["status"] for r in rows} == {"answered"}
    assert {r["backbone_version"] for r in rows} == {load_backbone("tiny").version}
    assert rows[0]["documents"] == [d.id for d in expected[0].documents]


def test_a_packaged_graph_has_no_part_that_judges(loaded: Any) -> None:
    graph = loaded.unwrap_python_model().graph
    assert graph.preset.compress  # there are texts that training may make shorter
    assert graph.compress is None
    assert not {"SG", "SC", "judge"} & {*graph.graph.get_graph().nodes, *graph.roles}


def test_a_bad_question_loses_no_other(loaded: Any) -> None:
    rows = loaded.predict([{"question": QUESTIONS[0].question}, {"question": " "}])
    assert [(r["status"], r["error"]) for r in rows] == [("answered", ""), ("failed", "EMPTY_QUESTION")]
    json.dumps(rows)


def test_a_missing_question_fails_its_own_row_alone(loaded: Any) -> None:
    import pandas as pd

    asked = QUESTIONS[0].question
    table = pd.DataFrame({"question": [asked, None, float("nan"), pd.NA, 3], "id": ["a", "b", None, "d", 5]})
    rows = loaded.predict(table)
    assert [r["status"] for r in rows] == ["answered", *["failed"] * 4]
    assert {r["error"] for r in rows[1:]} == {"EMPTY_QUESTION"}


def test_mlflow_takes_every_form_that_the_docstring_offers(loaded: Any) -> None:
    import numpy as np
    import pandas as pd

    asked = [q.question for q in QUESTIONS[:2]]
    answers = [r["answer"] for r in loaded.predict(asked)]
    assert all(answers)
    forms = (pd.DataFrame({"question": asked}), pd.Series(asked), np.array(asked), {"question": asked})
    for form in (*forms, {"question": np.array(asked)}, [{"question": q, "id": 7} for q in asked]):
        assert [r["answer"] for r in loaded.predict(form)] == answers
    assert [r["answer"] for r in loaded.predict(asked[0])] == answers[:1]


def test_what_holds_no_question_is_named() -> None:
    from jade_graph.versions.packaged import questions_of

    assert [q.question for q in questions_of(["a?", {"question": "b?", "id": "7"}])] == ["a?", "b?"]
    assert questions_of({"text": "c?"})[0].question == "c?"
    for wrong in (3, [3], [{"id": "x", "text": "y"}], {"question": ["a?"], "id": ["1", "2"]}):
        with pytest.raises(UsageError) as caught:
            questions_of(wrong)
        assert caught.value.error_code == "PACKAGE_INPUT"


def test_the_package_is_code_and_data_and_no_pickle(registry: Registry, packaged: Packaged) -> None:
    source = Path(registry.place.client.get_model_version("jade-graph", "1").source.removeprefix("file://"))
    names = {path.name for path in source.rglob("*") if path.is_file()}
    assert "pyfunc_model.py" in names
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert "jade-graph[registry]==" in (source / "requirements.txt").read_text()


def test_a_package_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text('{"schema": 99}')
    with pytest.raises(UsageError) as caught:
        Recipe.read(tmp_path / "graph.json")
    assert caught.value.error_code == "PACKAGE_SCHEMA"


def test_evaluation_by_mlflow_with_a_scorer_of_code(loaded: Any) -> None:
    """`mlflow.genai.evaluate`, offline: F1 by our own metric."""
    import mlflow
    from mlflow.entities import Feedback

    from jade_graph.scoring.metrics import token_f1

    @mlflow.genai.scorer
    def f1(outputs: Any, expectations: Any) -> Feedback:
        return Feedback(value=token_f1(outputs["answer"], expectations["answers"]))

    data = [{"inputs": {"question": q.question}, "expectations": {"answers": list(q.answers)}} for q in QUESTIONS]
    result = mlflow.genai.evaluate(
        data=data, predict_fn=lambda question: loaded.predict([{"question": question}])[0], scorers=[f1]
    )
    rows = loaded.predict([{"question": q.question} for q in QUESTIONS])
    scores = [token_f1(row["answer"], q.answers) or 0.0 for row, q in zip(rows, QUESTIONS, strict=True)]
    assert result.metrics["f1/mean"] == pytest.approx(sum(scores) / len(scores))


@pytest.mark.slow
def test_mlflow_models_serve_answers_over_loopback(registry: Registry, packaged: Packaged) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "MLFLOW_TRACKING_URI": registry.uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["mlflow", "models", "serve", "-m", "models:/jade-graph@champion", "--env-manager", "local"]
    process = subprocess.Popen([*command, "-h", "127.0.0.1", "-p", str(port)], env=env, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                assert httpx.get(f"{url}/ping", trust_env=False).status_code == 200
                break
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.5)
        body = {"dataframe_records": [{"question": q.question} for q in QUESTIONS[:2]], "params": {"seed": 3}}
        answer = httpx.post(f"{url}/invocations", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        rows = answer.json()["predictions"]
        assert [r["status"] for r in rows] == ["answered"] * 2
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.slow
def test_the_command_packages_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JADE_ENCODER", "hash")
    assert cli(["package-graph", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["uri"] == "models:/jade-graph/1"
    import mlflow

    mlflow.set_tracking_uri(told["tracking_uri"])
    try:
        (row,) = mlflow.pyfunc.load_model(told["uri"]).predict([{"question": QUESTIONS[0].question}])
    finally:
        mlflow.set_tracking_uri(None)
    assert row["status"] == "answered"
    assert row["documents"]
