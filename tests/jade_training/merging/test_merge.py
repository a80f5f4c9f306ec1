"""`jade merge`: parents from a registry, a learning run or folders become a version that gate, diff and studio know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jade_graph.backbones import TINY, load_backbone
from jade_graph.backbones.folders import content_version
from jade_graph.backbones.lora import merge as merge_one
from jade_graph.cli import main
from jade_graph.errors import BackboneError, UsageError
from jade_graph.gate.diff import diff
from jade_graph.registry import Registry
from jade_graph.registry.versions import MERGE
from jade_graph.studio.registered import Known, moments
from jade_graph.testing.evaluations import simulate_pair
from jade_graph.versions import VersionedBackbone
from jade_training.learner.adapters import trainable
from jade_training.learner.ppo import Lora
from jade_training.merging.curves import coefficients, decay_weights
from jade_training.merging.merge import merge
from jade_training.merging.parents import common_base, parents_of
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def work(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / ".jade").mkdir()
    shutil.copy(empty_database, tmp_path / ".jade" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registry(work: Path) -> Registry:
    return Registry(f"sqlite:///{work / '.jade' / 'mlflow.db'}", data_dir=work / ".jade")


def model(name: str | Path, factor: float = 1.0) -> Path:
    """The bundled model with one tensor times a factor."""
    folder = Path(name)
    shutil.copytree(TINY, folder)
    values = load_file(folder / "model.safetensors")
    values["model.norm.weight"] = values["model.norm.weight"] * factor
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def norm(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["model.norm.weight"].float()


def learned(out: str, factors: dict[int, float]) -> Path:
    """The folder of a learning run with models of some iterations."""
    run = Path(out)
    for i, factor in factors.items():
        model(run / "models" / f"{i:03d}", factor)
    (run / "improve.json").write_text(json.dumps({"facts": {}, "evaluations": {}, "done": 1, "history": []}))
    return run


def jade(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(args))
    told = capsys.readouterr()
    return code, told.out, told.err


# --- what is merged ---------------------------------------------------------------------------------------------------
def test_the_last_versions_of_a_model_are_merged_and_merges_are_left_out(registry, work, capsys):
    for i in range(4):
        registry.register(model(f"m{i}", 2.0**i))
    code, out, err = jade(capsys, "merge", "--last", "3", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [p["name"] for p in told["merge"]["parents"]] == ["version 2", "version 3", "version 4"]
    assert [p["coefficient"] for p in told["merge"]["parents"]] == pytest.approx([1 / 3] * 3)
    assert told["version"]["number"] == 5
    _, folder = registry.fetch(5)
    torch.testing.assert_close(norm(folder), norm(TINY) * 14 / 3, rtol=0.01, atol=0.01)
    again = json.loads(jade(capsys, "merge", "jade-backbone", "--last", "3", "--json")[1])
    assert (again["new"], again["version"]["number"]) == (False, 5)  # the merge is no checkpoint: the same are merged


def test_a_version_says_what_it_was_merged_from(registry, work, capsys):
    for i in range(3):
        registry.register(model(f"m{i}", 1.0 + i))
    code, _, err = jade(capsys, "merge", "--last", "3", "--decay", "1-sqrt")
    assert code == 0, err
    version = registry.get(4)
    weigh = coefficients(decay_weights("1-sqrt", 2))
    assert version.merge["decay"] == "1-sqrt"
    assert [p["coefficient"] for p in version.merge["parents"]] == pytest.approx(weigh)
    assert version.parents == tuple(registry.get(n).content for n in (1, 2, 3))
    assert json.loads(version.tags[MERGE]) == registry.manifest(4)["merge"]
    with registry.shelf.bundle(version) as bundle:
        card = (bundle.root / "README.md").read_text()
    for n, c in zip((1, 2, 3), weigh, strict=True):
        assert f"| version {n}: {registry.get(n).content} | {c:.6g} |" in card
    assert "3 merged, 1-sqrt" in jade(capsys, "versions")[1]
    found = diff(registry, 3, 4, trial=None)
    assert found.related == "parent"
    texts = [m.text for m in moments(Known(tuple(registry.versions()), ()))]
    assert any(
        f"version 4 registered: {version.content}, merged (1-sqrt) from version 1 ({weigh[0]:.3g}), "
        f"version 2 ({weigh[1]:.3g}), version 3 ({weigh[2]:.3g})" in text
        for text in texts
    ), texts


def test_the_models_of_a_learning_run_are_merged(registry, work, capsys):
    run = learned("run", {5: 1.0, 10: 2.0, 15: 4.0})
    code, out, err = jade(capsys, "merge", str(run), "--window", "2", "--decay", ".25", "--out", "merged", "--json")
    assert code == 0, err
    assert [p["coefficient"] for p in json.loads(out)["merge"]["parents"]] == [0.75, 0.25]
    torch.testing.assert_close(norm(Path("merged")), norm(TINY) * 2.5, rtol=0.01, atol=0.01)  # bfloat16
    assert registry.versions() == []  # a folder was asked for
    assert load_backbone("merged").version == content_version(Path("merged"))


def test_versions_and_folders_are_merged_in_the_order_given(registry, work, capsys):
    registry.register(model("m0", 2.0))
    model("m1", 4.0)
    options = ("--coefficients", ".25,.75", "--json")
    first = json.loads(jade(capsys, "merge", "1", "m1", *options, "--out", "a")[1])
    jade(capsys, "merge", "m1", "1", "--coefficients", ".75,.25", "--out", "b")
    assert [p["name"] for p in first["merge"]["parents"]] == ["version 1", "m1"]
    assert (work / "a/model.safetensors").read_bytes() == (work / "b/model.safetensors").read_bytes()
    # A parent is what it weighs, not what it is called.
    jade(capsys, "merge", "m0", "m1", *options, "--out", "c")
    assert (work / "a/model.safetensors").read_bytes() == (work / "c/model.safetensors").read_bytes()


def test_one_parent_is_itself(registry, work, capsys):
    registry.register(model("m0", 1.5))
    _, out, err = jade(capsys, "merge", "--last", "4", "--json")
    told = json.loads(out)
    assert "there are 1 to merge, fewer than the 4 asked for" in err
    assert len(told["merge"]["parents"]) == 1
    assert norm(registry.fetch(told["version"]["number"])[1]).tolist() == norm(Path("m0")).tolist()
    assert (told["new"], told["version"]["number"]) == (False, 1)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--last", "3"], "MERGE_EMPTY"),
        (["m0", "m1", "--last", "2"], "MERGE_LAST"),
        (["m0", "m1", "--coefficients", ".5,.6"], "MERGE_SUM"),
        (["m0", "m1", "--coefficients", "1"], "MERGE_COUNT"),
        (["m0", "m1", "--coefficients", ".5,x"], "BAD_COEFFICIENTS"),
        (["m0", "m1", "--coefficients", ".5,.5", "--decay", "linear"], "MERGE_TWICE"),
        (["m0", "m1", "--decay", "steep"], "UNKNOWN_DECAY"),
        (["m0", "m1", "--decay", "1,.5"], "BAD_DECAY"),
        (["m0", "7"], "VERSION_UNKNOWN"),
        (["m0", "other"], "MERGE_DIFFERS"),
        (["m0", "chatty"], "MERGE_DIFFERS"),
        (["m0", "m1", "--out", "m0"], "MERGE_EXISTS"),
        (["empty"], "MERGE_EMPTY"),
        (["m0", "m1", "--profile", "breif"], "BACKBONE_PROFILE"),
    ],
)
def test_what_cannot_be_merged_is_told_and_nothing_is_left(registry, work, capsys, folder, args, code):
    model("m0")
    model("m1", 2.0)
    shutil.copytree(folder, "other")
    model("chatty")
    (Path("chatty") / "jade.json").write_text('{"profile": "chat"}')
    Path("empty").mkdir()
    (Path("empty") / "improve.json").write_text("{}")
    status, out, _ = jade(capsys, "merge", *args, "--json")
    assert status != 0
    assert json.loads(out)["error"]["code"] == code
    assert registry.versions() == []


def test_a_warm_start_is_merged_with_the_model_it_began_from(work, capsys):
    """That one had another prompt profile, and a config with notes that no model reads."""
    before, after = model("before"), model("after", 3.0)
    (before / "jade.json").write_text('{"profile": "chat"}')
    config = json.loads((before / "config.json").read_text())
    (before / "config.json").write_text(json.dumps({**config, "_model_name_or_path": "Mix1 Ep2", "unk_token_id": 0}))
    status, out, _ = jade(capsys, "merge", "before", "after", "--coefficients", ".5,.5", "--out", "half", "--json")
    assert (status != 0, json.loads(out)["error"]["code"]) == (True, "MERGE_DIFFERS")
    assert "--profile" in json.loads(out)["error"]["hint"]
    given = ["--coefficients", ".5,.5", "--profile", "compact", "--out", "half"]
    assert jade(capsys, "merge", "before", "after", *given)[0] == 0
    wanted = (norm(before).double() + norm(after).double()) / 2
    assert norm(Path("half")).double().tolist() == pytest.approx(wanted.tolist(), abs=2**-8)  # stored in bfloat16
    assert json.loads((Path("half") / "jade.json").read_text())["profile"] == "compact"


def test_value_heads_are_merged_where_all_have_one(work):
    folders = [model(f"m{i}") for i in range(2)]
    for i, each in enumerate(folders):
        save_file({"w": torch.full((3,), float(i))}, each / "value_head.safetensors")
    registry = Registry(f"sqlite:///{work / '.jade' / 'mlflow.db'}", data_dir=work / ".jade")
    merge(parents_of(registry, [str(f) for f in folders]), [0.5, 0.5], work / "both")
    assert load_file(work / "both" / "value_head.safetensors")["w"].tolist() == [0.5] * 3
    (folders[0] / "value_head.safetensors").unlink()
    merge(parents_of(registry, [str(f) for f in folders]), [0.5, 0.5], work / "one")
    assert not (work / "one" / "value_head.safetensors").exists()


# --- adapters ---------------------------------------------------------------------------------------------------------
def adapter(base: Path, folder: Path, seed: int, rank: int = 4) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    adapted = trainable(AutoModelForCausalLM.from_pretrained(str(base)), Lora(rank, 2 * rank))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return folder


def test_adapters_are_merged_as_what_they_change(registry, work, folder):
    """Also of different ranks; the mean of the products is not the product of the means."""
    loras = [adapter(folder, work / f"lora{i}", i, rank=2 + 2 * i) for i in range(3)]
    weigh = [0.5, 0.3, 0.2]
    parents = parents_of(registry, [str(lora) for lora in loras])
    assert common_base(parents) == folder
    merge(parents, weigh, work / "merged")
    single = []
    for i, lora in enumerate(loras):
        merge_one(lora, folder, work / f"full{i}")
        single.append(load_file(work / f"full{i}" / "model.safetensors"))
    found = load_file(work / "merged" / "model.safetensors")
    for name, tensor in found.items():
        wanted = sum(c * s[name].double() for c, s in zip(weigh, single, strict=True))
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-6)
    merge([parents[i] for i in (2, 0, 1)], [weigh[i] for i in (2, 0, 1)], work / "turned")
    assert (work / "merged/model.safetensors").read_bytes() == (work / "turned/model.safetensors").read_bytes()
    merge(parents[:1], [1.0], work / "alone")
    assert {n: t.tolist() for n, t in load_file(work / "alone/model.safetensors").items()} == {
        n: t.tolist() for n, t in single[0].items()
    }


def test_registered_adapters_are_merged_as_changes_of_their_base(registry, work, folder, capsys):
    for i in range(2):
        registry.register(adapter(folder, work / f"lora{i}", i), base=str(folder))
    code, out, err = jade(capsys, "merge", "--last", "2", "--json")
    assert code == 0, err
    assert "changes of one base" in err
    version = json.loads(out)["version"]
    assert version["parents"] == [registry.get(1).content, registry.get(2).content]
    halves = [load_file(registry.fetch(n)[1] / "model.safetensors") for n in (1, 2)]
    for name, tensor in load_file(registry.fetch(3)[1] / "model.safetensors").items():
        torch.testing.assert_close(tensor, (halves[0][name] + halves[1][name]) / 2, rtol=1e-4, atol=1e-5)


def test_an_adapter_of_another_base_is_named(registry, work, folder):
    lora = adapter(folder, work / "lora", 0)
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "tiny"}))
    with pytest.raises((BackboneError, UsageError)) as error:
        merge(parents_of(registry, [str(lora)]), [1.0], work / "out")
    assert error.value.error_code in ("ADAPTER_LOAD", "MERGE_DIFFERS")


# --- a merged version is a version ------------------------------------------------------------------------------------
async def test_a_merge_passes_the_gate_is_served_hot_and_rolled_back(registry, work, capsys):
    from jade_graph.gate import Policy, Trial, promote

    for i in range(2):
        registry.register(model(f"m{i}", 1.0 + 0.1 * i))
    registry.promote(1, kind="force", reason="the first")
    code, _, err = jade(capsys, "merge", "--last", "2")
    assert code == 0, err
    backbone = VersionedBackbone.open(registry, lambda _, folder: load_backbone(str(folder)), poll_s=0.05)
    try:
        assert backbone.version == registry.get(1).content
        backbone.follow(None)
        ours, theirs = simulate_pair(0, 400, gain=0.15)
        facts = {
            n: {"dataset": "films-dev", "dataset_id": "d1", "seed": 0, "schema": 1, "hardware": {"cores": 2},
                "backbone_version": registry.get(n).content}
            for n in (1, 3)
        }  # fmt: skip
        outcome = promote(
            registry, 3, policy=Policy.of({"gain": {"resamples": 1000}}),
            trial=Trial("films-dev", {3: ours, 1: theirs}, facts),
        )  # fmt: skip
        assert outcome.verdict is not None
        assert outcome.verdict.passed
        await until(lambda: backbone.version == registry.get(3).content)
        assert jade(capsys, "rollback", "--reason", "worse")[0] == 0
        await until(lambda: backbone.version == registry.get(1).content)
    finally:
        await backbone.aclose()
