"""The learning loop over the bundled model: what it leaves behind, and that it goes on where it stopped."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jade_graph import plugins
from jade_graph.backbones import TINY
from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import ConfigError, UsageError
from jade_graph.runs.store import RunStore
from jade_graph.types import Question, Run
from jade_training.improve.improver import Data, Improver
from jade_training.improve.inputs import require_answers, require_apart
from jade_training.improve.settings import ImproveSettings
from jade_training.learner.ppo import Lora, PPOConfig

SMALL = ImproveSettings(
    iterations=3, questions=4, runs_per_question=2, evaluate_every=2, ppo=PPOConfig(estimator="rloo", minibatches=2)
)


@pytest.fixture(scope="module")
def whole(sets: tuple[Data, Data], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return asyncio.run(Improver(tmp_path_factory.mktemp("whole") / "run", TINY, *sets, SMALL).run())


def numbers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics that do not depend on the clock or the machine."""
    timed = ("seconds", "tokens_per_s", "memory_gib")
    return [{k: v for k, v in h.items() if k not in timed} for h in history]


def test_what_a_run_leaves_behind(whole: Any) -> None:
    assert whole.iterations == len(whole.history) == 3
    assert sorted(whole.evaluations) == [0, 2, 3]
    assert whole.stopped is None
    assert (whole.last / "model.safetensors").is_file()
    assert (whole.folder / "iterations" / "002" / "export" / "transitions.parquet").is_file()
    checkpoints = [p.parent.name for p in whole.folder.glob("iterations/*/checkpoint")]
    assert checkpoints == ["002"]
    with RunStore(whole.folder / "runs.sqlite") as store:
        runs = list(store.iter_runs())
    assert len(runs) == 3 * 4 * 2
    assert {r.backbone_version for r in runs} == {"run-000", "run-001", "run-002"}
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert all(line["rows"] > 0 for line in lines)


def test_a_run_that_was_cut_off_is_taken_up_from_its_recorded_runs(
    sets: tuple[Data, Data], tmp_path: Path, cut_off: Any
) -> None:
    """Cut off with the runs of the second iteration recorded and its update not: from there, two ways on are one."""
    out = tmp_path / "one" / "run"

    with cut_off(1):
        asyncio.run(Improver(out, TINY, *sets, SMALL).run())
    other = tmp_path / "other" / "run"
    shutil.copytree(out, other)
    ends = [asyncio.run(Improver(folder, TINY, *sets, SMALL).run()) for folder in (out, other)]
    one, two = (numbers(end.history[:2]) for end in ends)
    assert one == two
    assert [len(end.history) for end in ends] == [3, 3]
    with RunStore(out / "runs.sqlite") as store:
        assert len(list(store.iter_runs())) == 3 * 4 * 2


def test_a_finished_run_is_read_back(whole: Any, sets: tuple[Data, Data]) -> None:
    again = asyncio.run(Improver(whole.folder, TINY, *sets, SMALL).run())
    assert again.history == whole.history
    assert again.best == whole.best


def test_other_settings_are_refused(whole: Any, sets: tuple[Data, Data]) -> None:
    with pytest.raises(ConfigError, match=r"IMPROVE_CHANGED.*call_cost"):
        Improver(whole.folder, TINY, *sets, replace(SMALL, call_cost=0.5))


def test_what_changed_is_named(whole: Any, sets: tuple[Data, Data]) -> None:
    other = replace(SMALL, call_cost=0.5, ppo=replace(SMALL.ppo, clip=0.3))
    with pytest.raises(ConfigError) as refused:
        Improver(whole.folder, TINY, *sets, other)
    assert "settings.call_cost was 0.02 and is 0.5; settings.ppo.clip was 0.2 and is 0.3" in str(refused.value)
    with pytest.raises(ConfigError, match=r"another learning run: settings\.ppo\.lora was None and is \{[^;]*\.( |$)"):
        Improver(whole.folder, TINY, *sets, replace(SMALL, ppo=replace(SMALL.ppo, lora=Lora(4, 8))))


def test_runs_that_all_carry_out_one_plan_compare_none() -> None:
    with pytest.raises(ConfigError, match=r"CONFIG_VALUE.*--runs-per-plan 1"):
        ImproveSettings(runs_per_question=2)
    assert ImproveSettings(runs_per_question=3).runs_per_plan == 2


def test_questions_without_answers(sets: tuple[Data, Data]) -> None:
    def without(some: Data, n: int) -> Data:
        return replace(some, questions=[replace(q, answers=()) if i < n else q for i, q in enumerate(some.questions)])

    assert require_answers(*sets, "f1") == []
    (note,) = require_answers(without(sets[0], 2), sets[1], "em")
    assert "2 of 9 questions" in note
    assert sets[0].questions[0].id in note
    with pytest.raises(UsageError, match=r"NO_ANSWERS.*answers"):
        require_answers(sets[0], without(sets[1], 6), "f1")
    assert require_answers(without(sets[0], 9), sets[1], "brevity") == []


def test_nothing_to_learn(sets: tuple[Data, Data], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NOTHING_TO_TRAIN"):
        Improver(tmp_path, TINY, *sets, replace(SMALL, preset="vanilla-rag"))
    with pytest.raises(UsageError, match="DATASET_EMPTY"):
        Improver(tmp_path, TINY, replace(sets[0], questions=()), sets[1], SMALL)


def test_only_trainable_roles_learn_and_the_others_stay_with_the_start(sets: tuple[Data, Data], tmp_path: Path) -> None:
    jade = plugins.load("jade.presets", "jade")
    planner = replace(jade, trainable=frozenset({"PL"}))
    settings = replace(SMALL, iterations=1)
    found = asyncio.run(Improver(tmp_path / "run", TINY, *sets, settings, preset=planner).run())
    with RunStore(tmp_path / "run" / "runs.sqlite") as store:
        actions = [t for run in store.iter_runs() for t in run.transitions if t.role not in ("PL", "R")]
    assert actions
    assert {t.sampling["temperature"] for t in actions} == {0.0}
    assert not any(t.agent_trainable for t in actions)
    assert not any(t.backbone_version.startswith("run-") for t in actions)
    assert found.history[0]["rows"] >= 8


def test_held_out_means_held_out(sets: tuple[Data, Data], data: Any) -> None:
    require_apart(*sets)
    with pytest.raises(UsageError, match=r"NOT_HELD_OUT.*split 'train'"):
        require_apart(sets[0], data("train", 3))
    mine, other = replace(sets[0], name="a.jsonl"), replace(sets[0], name="b.jsonl")
    with pytest.raises(UsageError, match=r"NOT_HELD_OUT.*9 questions are in both"):
        require_apart(mine, other)


def test_cost_rises_between_its_bounds() -> None:
    settings = replace(SMALL, iterations=11, call_cost=0.1, cost_from=0.2, cost_to=0.6)
    assert [round(settings.cost(i), 3) for i in (0, 2, 4, 6, 10)] == [0.0, 0.0, 0.05, 0.1, 0.1]
    with pytest.raises(ConfigError, match="compares runs of one question"):
        replace(SMALL, runs_per_question=1)


def test_a_preset_brings_its_own_credit_and_no_plans_are_compared_where_none_is_written() -> None:
    presets = {name: plugins.load("jade.presets", name) for name in ("jade", "m-ask", "search-r1", "vanilla-rag")}
    settings = ImproveSettings(iterations=4, seed=3)
    found = {name: settings.ppo_of(preset) for name, preset in presets.items()}
    assert {name: p.credit for name, p in found.items()} == {
        "jade": "terminal_gae", "m-ask": "turn", "search-r1": "broadcast", "vanilla-rag": "terminal_gae"
    }  # fmt: skip
    assert found["jade"].plan_temperature == settings.ppo.plan_temperature is not None
    assert {found[name].plan_temperature for name in ("m-ask", "search-r1", "vanilla-rag")} == {None}
    assert (found["m-ask"].seed, found["m-ask"].updates) == (3, 4)
    assert replace(settings, credit="final").ppo_of(presets["m-ask"]).credit == "final"
    with pytest.raises(UsageError, match=r"UNKNOWN_CREDIT_MODE.*'turns'"):
        ImproveSettings(credit="turns")


@pytest.mark.parametrize(("preset", "credit"), [("m-ask", "return_to_go"), ("search-r1", None)])
def test_loops_learn(sets: tuple[Data, Data], tmp_path: Path, preset: str, credit: str | None) -> None:
    few = replace(SMALL, preset=preset, credit=credit, iterations=1, questions=3, evaluate_every=1)
    learned = asyncio.run(Improver(tmp_path / "run", BUNDLED["tiny-ask"], *sets, few).run())
    (metrics,) = learned.history
    roles = {"m-ask": {"KP", "KA", "KS"}, "search-r1": {"SR"}}[preset]
    assert all(metrics[f"{role}/rows"] > 0 for role in roles)
    assert metrics["plans"] == {preset: 6}
    state = json.loads((tmp_path / "run" / "improve.json").read_text("utf-8"))
    assert state["facts"]["credit"] == (credit or "broadcast")


def test_another_outcome_decides_what_is_learned_and_which_is_best(sets: tuple[Data, Data], tmp_path: Path) -> None:
    """Short answers earn more, right or wrong: rewards, metrics and the choice of the best all say so."""

    def brevity(run: Run, question: Question) -> float:
        return -len(run.answer.split()) / 10

    settings = replace(SMALL, iterations=2, evaluate_every=1, outcome="brevity", extra={"em": 0.5})
    with pytest.raises(UsageError, match=r"UNKNOWN_REWARD.*'brevity'"):
        Improver(tmp_path / "run", TINY, *sets, settings)
    with pytest.raises(UsageError, match="REWARD_SPEC"):
        Improver(tmp_path / "run", TINY, *sets, replace(settings, extra={"brevity": 1.0}), rewards={"brevity": brevity})
    learned = asyncio.run(Improver(tmp_path / "run", TINY, *sets, settings, rewards={"brevity": brevity}).run())
    assert all(h["score"] < 0 for h in learned.history)
    assert all(h["reward"] == pytest.approx(h["reward/brevity"] + h["reward/em"], abs=0.4) for h in learned.history)
    scores = {i: e["score"] for i, e in learned.evaluations.items()}
    assert scores[0] == pytest.approx(-0.1, abs=0.1)
    assert scores[learned.best_iteration] == max(scores.values())
    assert learned.evaluations[0]["f1"] != scores[0]


def test_adapters_learn_and_what_is_served_has_them(sets: tuple[Data, Data], tmp_path: Path) -> None:
    """Rollouts are of the model with its adapters, so their log-probabilities are those that the update finds."""
    rate = replace(SMALL.ppo, lora=Lora(4, 8), learning_rate=1e-2, logprob_tolerance=1e-3)
    settings = replace(SMALL, iterations=2, evaluate_every=2, ppo=rate)
    learned = asyncio.run(Improver(tmp_path / "run", TINY, *sets, settings).run())
    assert learned.iterations == 2
    start, merged = (load_file(folder / "model.safetensors") for folder in (TINY, learned.last))
    assert start.keys() == merged.keys()
    assert any(not torch.equal(start[k].float(), merged[k].float()) for k in start)
