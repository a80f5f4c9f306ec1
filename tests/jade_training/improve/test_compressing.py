"""A learning run that makes texts shorter: its terms, its figures, that it goes on, and that it is off by default."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jade_graph import plugins
from jade_graph.cli import main
from jade_graph.errors import ConfigError, GraphError, UsageError
from jade_graph.runs.store import RunStore
from jade_graph.scoring.compression import CompressionSpec
from jade_graph.scoring.rewards import score_run
from jade_graph.types import Parsed, Preset, Run, View
from jade_graph.workflow.judged import judged
from jade_nodes.compression import Scorer, Segmenter
from jade_training.improve.compressing import chosen, learners
from jade_training.improve.improver import Data, Improver
from jade_training.improve.settings import ImproveSettings
from jade_training.learner.ppo import PPOConfig

pytestmark = pytest.mark.usefixtures("declared")

OFF = ImproveSettings(
    preset="search-r1",
    iterations=2,
    questions=2,
    runs_per_question=2,
    evaluate_every=2,
    ppo=PPOConfig(estimator="rloo", minibatches=1),
)


@pytest.fixture
def legal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles that read whatever a model writes as a cut in halves, and as weights that its length decides."""

    def cut(self: Segmenter, text: str, view: View) -> Parsed:
        whole = str(view.memory["text"])
        half = len(whole) // 2
        return Parsed((whole[:half], whole[half:]) if half else (whole,))

    def weigh(self: Scorer, text: str, view: View) -> Parsed:
        return Parsed(tuple(1 + (len(text) + i) % 5 for i in range(len(view.memory["pieces"]))))

    monkeypatch.setattr(Segmenter, "parse", cut)
    monkeypatch.setattr(Scorer, "parse", weigh)


def preset() -> Preset:
    """Search-R1 with one short action."""
    own: Preset = plugins.load("jade.presets", "search-r1")
    return replace(own, role_options={"SR": {"max_new_tokens": 12}}, limits={"depth": 0, "rounds": 1})


def improved(out: Path, model: Path, sets: tuple[Data, Data], settings: ImproveSettings) -> Any:
    return asyncio.run(Improver(out / "run", model, *sets, settings, preset=preset()).run())


def weights(found: Any) -> dict[str, torch.Tensor]:
    return load_file(found.last / "model.safetensors")


def test_without_it_a_run_is_what_it_was(folder: Path, sets: tuple[Data, Data], tmp_path: Path) -> None:
    assert "compress" not in OFF.as_dict()
    off = improved(tmp_path / "off", folder, sets, OFF)
    nothing = replace(OFF, compress=CompressionSpec("uniform", alpha=0.0))
    on = improved(tmp_path / "on", folder, sets, nothing)
    assert all(torch.equal(tensor, weights(on)[name]) for name, tensor in weights(off).items())
    state = json.loads((on.folder / "improve.json").read_text())["facts"]["settings"]
    assert state["compress"] == CompressionSpec("uniform", alpha=0.0).as_dict()
    assert ImproveSettings(**state) == nothing
    assert "compression" not in off.history[0]
    assert "text_tokens" not in off.evaluations[2]
    assert on.evaluations[2]["text_tokens"] >= 0
    with RunStore(off.folder / "runs.sqlite") as store:
        assert not any("compression" in run.metadata for run in store.iter_runs())


def test_what_it_adds_and_that_it_goes_on(
    legal: None, folder: Path, sets: tuple[Data, Data], tmp_path: Path, cut_off: Any
) -> None:
    settings = replace(OFF, compress=CompressionSpec(alpha=0.5))
    whole = improved(tmp_path / "whole", folder, sets, settings)
    told = whole.history[0]["compression"]
    assert (told["valid"], told["why"]) == (1, {})
    assert told["penalty"] > 0
    assert told["calls"] > 0
    with RunStore(whole.folder / "runs.sqlite") as store:
        runs = list(store.iter_runs())
    rows = [t.role for run in runs for t in run.transitions if t.learns]
    assert {"SG", "SC", "SR"} <= set(rows)
    assert all(text.tokens == sum(text.lengths) for run in runs for text in judged(run))

    with cut_off(1):
        improved(tmp_path / "cut", folder, sets, settings)
    again = improved(tmp_path / "cut", folder, sets, settings)
    assert again.iterations == 2
    assert again.history[1]["compression"] == whole.history[1]["compression"]
    with pytest.raises(ConfigError, match=r"IMPROVE_CHANGED.*settings\.compress\.alpha was 0\.5 and is 0\.4"):
        Improver(again.folder, folder, *sets, replace(settings, compress=CompressionSpec(alpha=0.4)), preset=preset())


def test_a_run_is_explained_by_what_it_was_learned_from(
    legal: None, folder: Path, sets: tuple[Data, Data], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The very numbers of the learner: call costs and outcome of the settings, and compression against its group."""
    settings = replace(OFF, outcome="em", alpha=0.25, compress=CompressionSpec(alpha=0.5))
    found = improved(tmp_path, folder, sets, settings)
    questions = {q.id: q for q in sets[0].questions}
    with RunStore(found.folder / "runs.sqlite") as store:
        runs = [run for run in store.iter_runs() if str(run.metadata["rollout"]).endswith("-000")]
    spec = settings.rewards(preset(), 0)
    plain = {run.id: score_run(run, questions[run.question_id], spec) for run in runs}
    assert settings.compress is not None
    learned = settings.compress.scored(runs, plain)
    assert any(score.outcome and score.outcome["compression"] < 0 for score in learned.values())

    def explained(run: Run, *options: str) -> Any:
        capsys.readouterr()
        url = f"sqlite:///{found.folder}/runs.sqlite"
        assert main(["explain-credit", run.id, "--store", url, "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    for run in runs:
        told = explained(run)
        assert told["outcome"] == pytest.approx(dict(learned[run.id].outcome or {}))
        assert (told["spec"]["outcome"], told["spec_from"]) == ("em", "the learning run")
        assert told["compression"]["alpha"] == 0.5
    told = explained(runs[0], "--alpha", "0")
    assert "turn_cost" not in told["outcome"]
    assert told["spec_from"] == "the learning run, and options"


def test_a_preset_without_long_texts_is_refused(folder: Path, sets: tuple[Data, Data], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="GRAPH_COMPRESS"):
        Improver(tmp_path, folder, *sets, replace(OFF, preset="mmoa-rag", compress=CompressionSpec()))


def test_judges_learn_beside_the_roles_that_a_preset_trains() -> None:
    preset = replace(plugins.load("jade.presets", "search-r1"), trainable=frozenset({"SR"}))
    assert learners(preset, None) == {"SR"}
    assert learners(preset, CompressionSpec()) == {"SR", "SG", "SC"}
    assert learners(preset, CompressionSpec(scorer="frozen")) == {"SR", "SG"}
    assert learners(preset, CompressionSpec("uniform")) == {"SR"}


def test_options_of_the_command_line() -> None:
    assert chosen(None, None, None) is None
    assert chosen("scma", None, None) == CompressionSpec()
    told = chosen("scma", 1.0, "leave_one_out", ["reference=40", "kappa=4"])
    assert told == CompressionSpec(alpha=1.0, scorer="leave_one_out", reference=40.0, kappa=4.0)
    assert chosen("uniform", 0.5, None, ["reference=group"]) == CompressionSpec("uniform", 0.5)
    for given, code in (
        ((None, 0.3, None), "COMPRESS_OPTION"),
        (("uniform", None, "joint"), "COMPRESS_OPTION"),
        (("scma", None, None, ["capa=4"]), "COMPRESS_OPTION"),
        (("scma", None, None, ["kappa=much"]), "COMPRESS_OPTION"),
        (("scam", None, None), "UNKNOWN_COMPRESSION"),
        (("scma", None, "loo"), "UNKNOWN_SCORER"),
    ):
        with pytest.raises(UsageError, match=code):
            chosen(*given)  # type: ignore[arg-type]
