"""`jade improve` from a registered version and into the registry."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from jade_graph.backbones import TINY
from jade_graph.cli import main
from jade_graph.errors import UsageError
from jade_graph.registry import Registry
from jade_graph.registry.place import Place
from jade_graph.settings.fields import Settings
from jade_training.improve.improver import Improved
from jade_training.improve.registering import register_best, start_of
from jade_training.improve.tracking import tracked


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path(".jade").mkdir()
    shutil.copy(empty_database, Path(".jade") / "mlflow.db")
    found = Registry()
    found.register("tiny")
    found.promote(1, kind="force", reason="start")
    return found


def test_learning_starts_from_what_the_reference_names(registry):
    champion = registry.get("champion")
    folder = start_of(Settings(backbone="models:/jade-backbone@champion"))
    assert folder == registry.fetch(1)[1]
    assert start_of(Settings(backbone="tiny")) == TINY
    with pytest.raises(UsageError) as error:
        start_of(Settings(backbone="openai:http://127.0.0.1#m"))
    assert error.value.error_code == "BACKBONE_NOT_LOCAL"
    assert champion.number == 1


def test_a_comparison_starts_from_a_version_too(registry, monkeypatch, capsys):
    begun = []

    def comparison(out, start, *others):
        begun.append(start)
        raise UsageError("learning would begin here.", code="BEGUN")

    monkeypatch.setattr("jade_training.compare.run.Comparison", comparison)
    data = [f"--{name}=microworld:{split}?n=4&scale=0.1" for name, split in
            (("train", "train"), ("dev", "validation"), ("test", "test"))]  # fmt: skip
    assert main(["compare", "--quick", *data, "--backbone", "models:/jade-backbone@champion", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BEGUN"
    assert begun == [registry.fetch(1)[1]]


def test_a_run_that_made_nothing_better_registers_nothing(registry, tmp_path):
    result = Improved(tmp_path, 3, [], {}, TINY, 0, TINY, None, 1.0)
    assert register_best(Settings(), result) is None
    assert len(registry.versions()) == 1


def test_what_was_learned_from_a_version_is_registered_as_its_child(registry, capsys):
    command = [
        "improve", "microworld:train?n=20&scale=0.1", "--held-out", "microworld:validation?n=4&scale=0.1",
        "--backbone", "models:/jade-backbone@champion", "--iterations", "1", "--questions", "3",
        "--runs-per-question", "2", "--runs-per-plan", "1", "--evaluate-every", "1", "--register", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    best = result["best_iteration"]
    assert (result["version"] is None) == (best == 0)
    version = registry.register("improved/models/001")
    assert version.number == 2
    manifest = registry.manifest(2)
    assert manifest["parents"] == [registry.get(1).content]
    assert manifest["data"]["train"].startswith("microworld:train")
    assert manifest["data"]["selected_on"].startswith("microworld:validation")
    assert manifest["seeds"] == [0]
    assert manifest["hyperparameters"]["questions"] == 3
    assert manifest["model"]["value_head"] is True
    assert {"f1", "calls"} <= version.metrics.keys()
    if best:
        assert result["version"]["number"] == 2


def test_the_command_learns_adapters_and_logs_to_one_run_of_mlflow(registry, tmp_path, capsys):
    client = Place.find().client

    def runs():
        return client.search_runs([client.get_experiment_by_name("jade-improve").experiment_id])

    command = [
        "improve", "microworld:train?n=6&scale=0.1", "--held-out", "microworld:validation?n=4&scale=0.1", "--backbone",
        "tiny", "--questions", "2", "--runs-per-question", "2", "--runs-per-plan", "1", "--evaluate-every", "1",
        "--lora", "2", "--ppo", "minibatches=2", "--outcome", "em", "--mlflow", "--json", "--out",
        str(tmp_path / "learned"),
    ]  # fmt: skip
    assert main([*command, "--iterations", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["history"][0]["score"] is not None
    (run,) = runs()
    assert run.info.run_name == "learned"
    assert run.data.params["ppo.lora.rank"] == "2"
    assert run.data.params["outcome"] == "em"
    assert run.data.metrics["score"] == pytest.approx(told["history"][0]["score"])
    assert run.data.metrics["held_out.score"] == pytest.approx(told["evaluations"]["1"]["score"])
    starts = client.get_metric_history(run.info.run_id, "held_out.f1")
    assert [(m.step, m.value) for m in starts] == [(i, told["evaluations"][str(i)]["f1"]) for i in (0, 1)]
    assert main([*command, "--iterations", "1"]) == 0, "a finished one is read back"
    assert main([*command, "--iterations", "2"]) == 2, "other settings are refused, and nothing is said of them"
    (run,) = runs()
    assert run.info.status == "FINISHED"


def test_a_run_of_mlflow_goes_on_with_the_same_settings(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    place = Place.find(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    notes: list[str] = []
    for step, outcome in enumerate(("ems", "em", "em")):
        with (
            contextlib.suppress(KeyboardInterrupt),
            tracked(place, tmp_path / "run", {"outcome": outcome, "deep": {"of": 1}}, tell=notes.append) as log,
        ):
            log({"score": 0.5, "plans": {"R,AG": 3}, "nested": {"of": 1}, "text": "no number"}, step)
            if step == 1:
                raise KeyboardInterrupt
    assert len(notes) == 3
    experiment = place.client.get_experiment_by_name("jade-improve").experiment_id
    found = place.client.search_runs([experiment], order_by=["attributes.start_time"])
    assert [run.data.params for run in found] == [{"outcome": o, "deep.of": "1"} for o in ("ems", "em")]
    assert [run.data.metrics for run in found] == [{"score": 0.5, "nested.of": 1.0}] * 2
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
    assert [m.step for m in place.client.get_metric_history(found[1].info.run_id, "score")] == [1, 2]


def test_a_store_that_fails_costs_the_record_alone(tmp_path, empty_database, monkeypatch):
    from mlflow.exceptions import MlflowException

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    place = Place.find(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    notes: list[str] = []

    def refused(*args, **kwargs):
        raise MlflowException("the disk is full")

    with tracked(place, tmp_path / "run", {}, tell=notes.append) as log:
        monkeypatch.setattr(type(place.client), "log_batch", refused)
        log({"score": 0.5}, 3)
    assert "step 3: the disk is full" in notes[-1]
