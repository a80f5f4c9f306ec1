"""`gate.promote`: from a trial to the log, evidence from files, held-out questions, other champions meanwhile."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jade_graph.cli.showing import markdown, of_diff, of_history, of_outcome, of_versions, shown
from jade_graph.errors import DataError, RegistryError, UsageError
from jade_graph.gate import Policy, Trial, promote
from jade_graph.gate.diff import diff, logged
from jade_graph.gate.promoting import contestants, held_out
from jade_graph.registry import Registry
from jade_graph.registry.place import Place
from jade_graph.scoring.keeping import load_rows, save_rows
from jade_graph.testing.evaluations import simulate_pair

QUICK = Policy.of({"gain": {"resamples": 1000}})
FACTS = {"dataset": "films", "dataset_id": "d1", "seed": 0, "schema": 1, "hardware": {"cores": 2}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Three versions that differ by a factor in one tensor; the third learned from "films"."""
    from safetensors.torch import load_file, save_file

    from jade_graph.backbones import TINY

    root = tmp_path_factory.mktemp("gate")
    (root / "data").mkdir()
    shutil.copy(empty_database, root / "data" / "mlflow.db")
    registry = Registry(f"sqlite:///{root / 'data' / 'mlflow.db'}", data_dir=root / "data")
    for i in range(3):
        folder = root / f"model{i}"
        shutil.copytree(TINY, folder)
        values = load_file(folder / "model.safetensors")
        values["model.norm.weight"] = values["model.norm.weight"] * (1 + 0.5 * i)
        save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
        parents = [registry.get(1).content] if i == 1 else []
        registry.register(folder, manifest={"data": {"train": "films"}} if i == 2 else None, parents=parents)
    return root / "data"


def copied(stored: Path, tmp_path: Path) -> Registry:
    data = tmp_path / "data"
    shutil.copytree(stored, data)
    found = Registry(f"sqlite:///{data / 'mlflow.db'}", data_dir=data)
    found.relocate()
    return found


@pytest.fixture
def registry(stored: Path, tmp_path: Path) -> Registry:
    found = copied(stored, tmp_path)
    found.promote(1, kind="force", reason="the first")
    return found


def trial(registry: Registry, gain: float, *, dataset: str = "films-dev", versions: tuple[int, int] = (1, 2)) -> Trial:
    champion, challenger = versions
    ours, theirs = simulate_pair(0, 400, gain=gain)
    facts = {n: FACTS | {"dataset": dataset, "backbone_version": registry.get(n).content} for n in versions}
    return Trial(dataset, {challenger: ours, champion: theirs}, facts)


def test_what_passes_is_promoted_with_its_evidence(registry):
    outcome = promote(registry, 2, policy=QUICK, trial=trial(registry, 0.15))
    assert outcome.verdict is not None
    assert outcome.verdict.passed
    assert registry.current() == 2
    entry = registry.history()[0]
    assert entry.kind == "promote"
    assert entry.summary == outcome.verdict.summary
    assert entry.evidence["gain"]["difference"] == pytest.approx(outcome.verdict.figures()["gain"]["difference"])
    files = registry.evidence(entry)
    assert Policy.load(files["policy.toml"]) == QUICK
    assert json.loads(files["verdict.json"].read_text())["passed"] is True
    rows, manifest = load_rows(files["challenger.jsonl"])
    assert (len(rows), manifest["dataset"]) == (400, "films-dev")
    again = logged(registry, registry.get(1), registry.get(2))
    assert again is not None
    assert list(again.rows[2]) == rows


def test_what_is_refused_changes_nothing(registry):
    outcome = promote(registry, 2, policy=QUICK, trial=trial(registry, 0.0))
    assert outcome.promotion is None
    assert registry.current() == 1
    assert len(registry.history()) == 1
    assert promote(registry, 2, policy=QUICK, trial=trial(registry, 0.15), dry_run=True).promotion is None
    assert registry.current() == 1
    (table,) = of_outcome(outcome)
    assert any(row[0] == "gain" and row[1] == "REFUSED" and row[3] for row in table.rows)
    assert outcome.as_dict()["promoted"] is False


def test_force_goes_past_the_gate_and_is_logged_as_such(registry):
    with pytest.raises(UsageError) as error:
        promote(registry, 2, policy=QUICK, force=True, reason=" ")
    assert error.value.error_code == "PROMOTION_REASON"
    outcome = promote(registry, 2, policy=QUICK, trial=trial(registry, 0.0), force=True, reason="an outage")
    assert outcome.promotion is not None
    assert (outcome.promotion.kind, outcome.promotion.reason) == ("force", "an outage")
    assert outcome.promotion.summary.startswith("refused")
    assert promote(registry, 3, force=True, reason="without looking").verdict is None
    assert registry.current() == 3


def test_another_champion_since_the_measurement(registry):
    measured = trial(registry, 0.15)
    registry.promote(3, kind="force", reason="meanwhile")
    with pytest.raises(RegistryError) as error:
        promote(registry, 2, policy=QUICK, trial=measured)
    assert error.value.error_code == "PROMOTION_OUTDATED"
    with pytest.raises(RegistryError) as same:
        contestants(registry, 3)
    assert same.value.error_code == "PROMOTION_SAME"
    assert registry.current() == 3


def test_without_a_champion_only_the_challenger_is_judged(stored, tmp_path):
    registry = copied(stored, tmp_path)
    both = trial(registry, 0.0, versions=(1, 2))
    outcome = promote(registry, 2, policy=QUICK, trial=Trial("films-dev", {2: both.rows[2]}, {2: both.manifests[2]}))
    assert outcome.promotion is not None
    assert outcome.promotion.kind == "first"
    assert outcome.promotion.from_version is None


@pytest.mark.parametrize(
    ("learned", "chosen", "asked", "passed", "told"),
    [
        ("films", "", "films", False, "not held out"),
        ("films", "", "books", True, "learned from films"),
        ("microworld:train?n=10", "", "microworld:train?n=20,seed=9", False, "not held out"),
        ("microworld:train?n=10", "microworld:validation?n=5", "microworld:validation?n=60", True, "flatters"),
        ("microworld:train?n=10", "microworld:validation?n=5", "microworld:test?n=60", True, "learned from"),
        ("", "", "films", True, "not known"),
    ],
)
def test_held_out(learned, chosen, asked, passed, told):
    found = held_out({"train": learned, "selected_on": chosen}, Trial(asked, {}, {}))
    assert found.passed is passed
    assert told in found.told


def test_a_version_is_not_judged_on_what_it_learned_from(registry):
    outcome = promote(registry, 3, policy=QUICK, trial=trial(registry, 0.15, dataset="films", versions=(1, 3)))
    assert outcome.promotion is None
    assert outcome.verdict is not None
    assert [f.rule for f in outcome.verdict.findings if not f.passed] == ["held out"]


# --- evidence ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def files(registry: Registry, tmp_path: Path) -> list[Path]:
    measured = trial(registry, 0.15)
    paths = [tmp_path / "champion.jsonl", tmp_path / "challenger.jsonl"]
    for path, number in zip(paths, (1, 2), strict=True):
        save_rows(path, measured.rows[number], measured.manifests[number])
    return paths


def test_evidence_from_files(registry, files):
    assert promote(registry, 2, policy=QUICK, evidence=files).promotion is not None


def edit(path: Path, **changes) -> None:
    rows, manifest = load_rows(path)
    save_rows(path, rows, manifest | changes)


def test_evidence_must_be_of_these_versions_and_alike(registry, files):
    for evidence, code in ((list(reversed(files)), "EVIDENCE_OTHER_MODEL"), (files[:1], "EVIDENCE_FILES")):
        with pytest.raises(UsageError) as error:
            promote(registry, 2, policy=QUICK, evidence=evidence)
        assert error.value.error_code == code
    edit(files[1], seed=1)
    with pytest.raises(UsageError) as differs:
        promote(registry, 2, policy=QUICK, evidence=files)
    assert differs.value.error_code == "MANIFEST_DIFFERS"
    edit(files[1], seed=0, hardware={"cores": 64})
    outcome = promote(registry, 2, policy=QUICK, evidence=files)
    assert outcome.verdict is not None
    assert [f.rule for f in outcome.verdict.findings if not f.passed] == ["latency"]
    files[0].write_text("nothing")
    with pytest.raises(DataError) as unreadable:
        promote(registry, 2, policy=QUICK, evidence=files)
    assert unreadable.value.error_code == "EVAL_FILE"
    assert registry.current() == 1


def test_evidence_of_the_folder_that_became_the_version(registry, files):
    """`jade eval --backbone improved/models/005` records the folder's own name before the hash."""
    version = registry.get(2)
    edit(files[1], backbone_version=f"005@{version.tags['jade.source_weights']}")
    assert promote(registry, 2, policy=QUICK, evidence=files).promotion is not None


# --- looking ----------------------------------------------------------------------------------------------------------
def test_a_difference_of_two_versions(registry):
    measured = trial(registry, 0.15)
    found = diff(registry, 1, 2, measured)
    assert found.related == "parent"
    assert found.weights.unmatched == ()
    drift = {layer.name: layer.drift for layer in found.weights.layers}
    assert drift["norm"] == pytest.approx(0.5, abs=0.02)
    assert {name for name, moved in drift.items() if moved} == {"norm"}
    assert list(drift) == ["embedding", "layer 0", "layer 1", "layer 2", "layer 3", "norm"]
    assert sum(layer.parameters for layer in found.weights.layers) == 1_267_840
    b = found.behaviour
    assert b is not None
    wins = sum(x.em == 0 and y.em == 1 for x, y in zip(measured.rows[1], measured.rows[2], strict=True))
    assert len(b.turned_right) == wins > 0
    assert all(t.run_a and t.run_b and (t.f1_b or 0) == 1.0 for t in b.turned_right)
    f1 = next(f for f in b.figures if f.name == "f1")
    assert f1.difference == pytest.approx((f1.b or 0) - (f1.a or 0))
    assert f1.ci is not None
    assert f1.ci[0] <= (f1.difference or 0) <= f1.ci[1]
    assert len(b.types) == 7
    assert b.plans == {"R,AG": (1.0, 1.0)}


def test_nothing_turned_between_a_version_and_itself(registry):
    rows = simulate_pair(0, 50)[0]
    found = diff(registry, 1, 1, Trial("films", {1: rows}, {1: {}}))
    assert found.weights.same
    b = found.behaviour
    assert b is not None
    assert (b.same_plan, b.same_answer, b.turned_right, b.turned_wrong) == (1.0, 1.0, (), ())


def test_tables_show_every_part(registry):
    found = diff(registry, 1, 2, trial(registry, 0.15))
    parts = of_diff(found, most=3)
    text = markdown("versions", parts)
    assert "| norm | 50" in text
    assert text.count("\n## ") == len([p for p in parts if p.rows])
    assert max(len(p.rows) for p in parts if "turned right" in p.title) == 3
    for lists in (parts, of_versions(registry.versions()), of_history(registry.history())):
        assert shown(lists)
    assert "1 -> 2" not in text
    replaced = replace(found, behaviour=None)
    assert len(of_diff(replaced)) == 1


def test_weights_that_do_not_match_are_named(tmp_path):
    import torch
    from safetensors.torch import save_file

    from jade_graph.gate.diff import compare_weights

    for name, values in (
        ("a", {"x.weight": torch.ones(4), "only_a": torch.ones(1), "h.0.w": torch.ones(2)}),
        ("b", {"x.weight": torch.full((4,), 2.0), "h.0.w": torch.ones(3)}),
    ):
        (tmp_path / name).mkdir()
        save_file(values, tmp_path / name / "model.safetensors")
    found = compare_weights(tmp_path / "a", tmp_path / "b")
    assert found.unmatched == ("only_a", "h.0.w")
    assert found.drift == pytest.approx(1.0)
    assert not found.same


def test_the_place_knows_its_lock(tmp_path):
    assert Place.find(f"sqlite:///{tmp_path / 'm.db'}", tmp_path / "data").lock == tmp_path / "registry.lock"
    assert Place.find("http://127.0.0.1:9", tmp_path / "data").lock == tmp_path / "data" / "registry.lock"


def test_a_refused_try_is_counted_on_the_champion_that_it_was_made_against(registry: Registry) -> None:
    equal, better = trial(registry, 0.0), trial(registry, 0.3)
    refused = promote(registry, 2, policy=QUICK, trial=equal)
    assert refused.promotion is None
    assert registry.refusals(1) == 1
    promote(registry, 2, policy=QUICK, trial=equal, dry_run=True)  # decides nothing
    assert registry.refusals(1) == 1
    done = promote(registry, 2, policy=QUICK, trial=better)
    assert done.promotion is not None
    assert done.verdict is not None
    assert done.verdict.figures()["gain"]["tries"] == 2
    assert (registry.refusals(1), registry.refusals(2)) == (1, 0)  # another champion, another count


def test_too_few_questions_are_refused_before_any_is_asked(registry, monkeypatch):
    """Nothing is opened, no try is counted; the limit is named."""
    from jade_graph.gate import trial as asking
    from jade_graph.settings.config import load_config

    monkeypatch.setattr(asking, "open_backbone", lambda *_: pytest.fail("a version was opened"))
    policy = Policy.of({"questions": {"dataset": "microworld:validation?n=60"}})
    config = load_config(overrides=[f"data_dir={registry.place.data}"])
    with pytest.raises(UsageError, match="has 49 questions within --limit 49, and the gate decides on 50") as told:
        promote(registry, 2, config, policy=policy, limit=49)
    assert told.value.error_code == "GATE_FEW_QUESTIONS"
    assert registry.refusals(1) == 0
    with pytest.raises(pytest.fail.Exception, match="a version was opened"):
        promote(registry, 2, config, policy=policy, limit=50)
