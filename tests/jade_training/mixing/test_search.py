"""MergeMix: merging experts stands for mixing their data, and the search finds the best shares."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jade_graph.backbones.folders import content_version
from jade_graph.errors import ConfigError, UsageError
from jade_training.merging.linear import combine
from jade_training.merging.parents import Parent
from jade_training.mixing.mixture import Mixture
from jade_training.mixing.search import Found, drift, search
from jade_training.mixing.simplex import design, grid, uniform
from jade_training.mixing.surface import Surface

pytestmark = pytest.mark.usefixtures("one_thread")


def named(name, folder):
    return Parent(name, content_version(folder), folder)


# --- points -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_design_fills_the_simplex(parts):
    points = design(parts, 40, seed=1)
    assert points.shape == (40, parts)
    np.testing.assert_allclose(points.sum(1), 1.0)
    assert points.min() >= 0
    np.testing.assert_array_equal(points[:parts], np.eye(parts))
    np.testing.assert_allclose(points[parts], 1 / parts)
    np.testing.assert_array_equal(points, design(parts, 40, seed=1))

    def gap(found):
        return max(np.min(((found - p) ** 2).sum(1)) for p in uniform(parts, 500, 9))

    assert gap(points) < gap(np.concatenate([np.eye(parts), uniform(parts, 40 - parts, 1)]))


def test_the_grid_has_every_multiple():
    points = grid(3, 4)
    assert len(points) == math.comb(6, 2)
    np.testing.assert_allclose(points.sum(1), 1.0)
    assert len({tuple(p) for p in points}) == len(points)


# --- first order ------------------------------------------------------------------------------------------------------
def test_after_one_step_merging_is_mixing():
    """Exactly: one SGD step on a mixture of losses is the mixture of one step on each."""
    g = torch.Generator().manual_seed(0)
    base = torch.randn(6, generator=g, dtype=torch.float64)
    data = [(torch.randn(20, 6, generator=g, dtype=torch.float64), torch.randn(20, generator=g, dtype=torch.float64))
            for _ in range(3)]  # fmt: skip

    def step(shares):
        w = torch.nn.Parameter(base.clone())
        sum(a * torch.tanh(x @ w - y).square().mean() for a, (x, y) in zip(shares, data, strict=True)).backward()
        return (w - 0.1 * w.grad).detach()

    experts = [step([float(i == k) for i in range(3)]) for k in range(3)]
    for shares in design(3, 12, 0):
        merged = combine([{"w": e} for e in experts], [float(a) for a in shares])["w"]
        assert float((merged - step(shares)).abs().max()) <= 1e-6


# --- the surface ------------------------------------------------------------------------------------------------------
def test_the_best_shares_of_a_known_surface_are_found():
    target = np.array([0.2, 0.5, 0.3])
    points = design(3, 25, 0)
    scores = {
        "a": [-float(((p - target) ** 2).sum()) for p in points],
        "b": [10 - 3 * float(abs(p - target).sum()) for p in points],
    }
    surface = Surface(points, scores)
    np.testing.assert_allclose(surface.best(), target, atol=0.05)
    alone = surface.best({"a": 1.0})
    np.testing.assert_allclose(alone, target, atol=0.05)
    assert float(surface.utility({"a": max(scores["a"]), "b": max(scores["b"])})) == pytest.approx(1.0)
    with pytest.raises(UsageError, match="UNKNOWN_CAPABILITY"):
        surface.best({"c": 1.0})
    with pytest.raises(UsageError, match="BAD_WEIGHTS"):
        surface.best({"a": -1.0, "b": 2.0})


def test_scores_that_are_all_alike_are_no_error():
    points = design(2, 6, 0)
    surface = Surface(points, {"flat": [0.5] * 6})
    assert float(surface.predict(points)["flat"][0]) == pytest.approx(0.5)
    assert surface.best().sum() == pytest.approx(1.0)


# --- the search -------------------------------------------------------------------------------------------------------
@pytest.fixture
def experts(folder, tmp_path):
    """Three models that differ from their base in one tensor each."""
    found = {}
    for i, name in enumerate("abc"):
        made = tmp_path / name
        shutil.copytree(folder, made)
        values = load_file(made / "model.safetensors")
        values["model.norm.weight"] = values["model.norm.weight"].clone()
        values["model.norm.weight"][i] += 1.0
        save_file(values, made / "model.safetensors", {"format": "pt"})
        found[name] = named(name, made)
    return found


def score(folder):
    """A capability that is best where the norm's first three weights have moved by .2, .5 and .3."""
    moved = load_file(folder / "model.safetensors")["model.norm.weight"][:3] - 1.0
    return {"near": -float((moved - torch.tensor([0.2, 0.5, 0.3])).square().sum())}


def test_a_search_verifies_what_it_proposes(folder, experts, tmp_path):
    seen = []
    found = search(
        named("base", folder), experts, score, tmp_path / "mix", budget=16, tell=lambda d, n: seen.append((d, n))
    )
    assert isinstance(found, Found)
    assert [found.shares[n] for n in "abc"] == pytest.approx([0.2, 0.5, 0.3], abs=0.06)
    assert found.verified["near"] == pytest.approx(score(tmp_path / "mix" / "best")["near"])
    assert found.verified["near"] == pytest.approx(found.predicted["near"], abs=0.02)
    assert found.utility["verified"] >= found.utility["middle"]
    assert len(found.scored) == 15
    assert seen[-1] == (16, 16)
    assert not (tmp_path / "mix" / "merge").exists()
    for name in "abc":
        assert found.drift[name] == pytest.approx(drift(folder, experts[name].folder))
    assert json.loads((tmp_path / "mix" / "search.json").read_text())["shares"] == found.shares


def test_a_search_goes_on_where_it_was_cut_off(folder, experts, tmp_path):
    base, whole = named("base", folder), search(named("base", folder), experts, score, tmp_path / "whole", budget=9)
    calls = []

    class CutError(Exception):
        pass

    def cut(path):
        calls.append(path)
        if len(calls) == 5:
            raise CutError
        return score(path)

    with pytest.raises(CutError):
        search(base, experts, cut, tmp_path / "cut", budget=9)
    with (tmp_path / "cut" / "merges.jsonl").open("a") as file:
        file.write('{"shares": {"a"')  # the line that it was writing
    calls.clear()
    again = search(base, experts, lambda path: calls.append(path) or score(path), tmp_path / "cut", budget=9)
    assert len(calls) == 8 - 4 + 1
    assert again.as_dict() == whole.as_dict()
    with pytest.raises(ConfigError, match="MIX_CHANGED"):
        search(base, experts, score, tmp_path / "cut", budget=9, seed=1)


@pytest.mark.parametrize(("names", "budget"), [("a", 10), ("abc", 4)])
def test_what_is_no_search_is_told(folder, experts, tmp_path, names, budget):
    with pytest.raises(UsageError, match="MIX_EXPERTS"):
        search(named("base", folder), {n: experts[n] for n in names}, score, tmp_path / "mix", budget=budget)


def test_drift_is_the_norm_of_what_changed_over_the_base(folder, experts):
    norm = math.sqrt(sum(float(t.double().square().sum()) for t in load_file(folder / "model.safetensors").values()))
    assert drift(folder, experts["a"].folder) == pytest.approx(1.0 / norm)
    assert drift(folder, folder) == 0.0


def test_a_picture_is_drawn_for_any_number_of_experts(folder, experts, tmp_path):
    from jade_training.mixing.picture import draw

    for names in ("ab", "abc"):
        some = {n: experts[n] for n in names}
        found = search(named("base", folder), some, score, tmp_path / f"mix{names}", budget=7)
        assert draw(found, tmp_path / f"{names}.png").stat().st_size > 5000


def test_the_command_writes_a_mixture_that_training_reads(folder, experts, tmp_path, capsys, monkeypatch):
    from jade_graph.cli import main
    from jade_graph.microworld.shown import Shown
    from jade_graph.types import Message
    from jade_training.supervised import files

    monkeypatch.chdir(tmp_path)
    shown = [
        Shown(f"d:{i}", "AG" if i % 2 else "PL", (Message("user", f"what is {i}?"),), f"<answer>{i}</answer>")
        for i in range(8)
    ]
    files.write(tmp_path / "held.jsonl", shown, {"profile": "brief"})
    part = {"a": "PL", "b": "AG", "c": "AS"}
    options = [x for n, p in experts.items() for x in ("--expert", f"{part[n]}={p.folder}")]
    code = main(["mix", "search", "--base", str(folder), *options, "--score", "held.jsonl", "--budget", "6", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0, told
    assert set(told["verified"]) == {"PL", "AG"}
    mixture = Mixture.read(tmp_path / "mix" / "mixture.toml")
    assert set(mixture.shares) == {"PL", "AG", "AS"}
    assert sum(mixture.shares.values()) == pytest.approx(1.0)
    assert (tmp_path / "mix" / "surface.png").is_file()
    Mixture({"PL": 0.25, "AG": 0.75}).write(tmp_path / "m.toml")
    options = ["--backbone", str(folder), "--mixture", "m.toml", "--held-out", "0", "--steps", "1", "--out", "new"]
    code = main(["sft", "held.jsonl", *options, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0, told
    assert told["metrics"]["examples"] == 8
