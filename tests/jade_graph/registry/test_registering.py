"""Registering: what a version holds, what is recognised, what is refused, and what a broken store does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jade_graph.backbones import TINY, load_backbone
from jade_graph.backbones.folders import content_version
from jade_graph.errors import BackboneError, JadeError, RegistryError, UsageError
from jade_graph.registry import ModelVersion, Registry
from jade_graph.registry.candidates import best_of
from jade_graph.registry.versions import Reference

from .conftest import tensors, write


def code(error: pytest.ExceptionInfo[JadeError]) -> str:
    return error.value.error_code


def test_a_version_holds_the_model_and_says_what_it_is(registry, variant):
    version = registry.register(variant("model", 0.01), metrics={"f1": 0.25}, manifest={"data": {"train": "films"}})
    assert (version.number, version.name, version.aliases) == (1, "jade-backbone", ("challenger",))
    assert version.uri == "models:/jade-backbone/1"
    assert version.metrics == {"f1": 0.25}
    found, folder = registry.fetch("challenger")
    assert found == version
    assert content_version(folder) == version.content
    assert {p.name for p in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "jade.json"}
    manifest = registry.manifest(1)
    assert manifest["model"]["profile"] == "compact"
    assert manifest["model"]["parameters"] == 1_267_840
    assert manifest["data"] == {"train": "films"}
    assert {"packages", "jade", "hardware", "time"} <= manifest.keys()
    with registry.shelf.bundle(version) as bundle:
        card = (bundle.root / "README.md").read_text("utf-8")
    assert "films" in card
    assert "| f1 | 0.25 |" in card


def test_what_runs_record_is_the_content(registry, variant):
    version = registry.register(variant("model", 0.01))
    backbone = load_backbone(str(registry.fetch(1)[1]))
    assert backbone.version == version.content


def test_the_same_model_is_recognised_wherever_it_lies(registry, variant):
    first = registry.register(variant("one", 0.01))
    copy = variant("two", 0.01)
    (copy / "README.md").write_text("other words")
    (copy / "figures.json").unlink()
    again = registry.register(copy)
    assert again.number == first.number == 1
    assert registry.register(variant("three", 0.02)).number == 2
    assert [v.number for v in registry.versions()] == [2, 1]
    assert registry.get("challenger").number == 2


def test_the_same_weights_with_another_profile_are_another_model(registry, variant):
    registry.register(variant("one"))
    other = variant("two")
    settings = json.loads((other / "jade.json").read_text())
    (other / "jade.json").write_text(json.dumps(settings | {"max_context": 256}))
    assert registry.register(other).number == 2


def test_the_value_head_is_kept_apart(registry, variant):
    import torch
    from safetensors.torch import save_file

    folder = variant("model")
    plain = registry.register(variant("plain"))
    save_file({"linear.weight": torch.ones(1, 128)}, folder / "value_head.safetensors")
    version = registry.register(folder)
    assert version.number == 2
    assert version.content == plain.content, "the weights that answer are the same"
    _, fetched = registry.fetch(2)
    assert not list(fetched.glob("value_head*"))
    with registry.shelf.bundle(version) as bundle:
        assert (bundle.root / "value_head" / "value_head.safetensors").is_file()
    assert version.tags["jade.source_weights"] == content_version(folder).rpartition("@")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (3, Reference(number=3)),
        ("3", Reference(number=3)),
        ("champion", Reference(alias="champion")),
        ("models:/m@champion", Reference(alias="champion", name="m")),
        ("models:/m/12", Reference(number=12, name="m")),
    ],
)
def test_references(text, expected):
    assert Reference.parse(text) == expected


@pytest.mark.parametrize("text", ["", "models:/m", "models:/m@", "models:m/1", "a b", "1.5", "-1"])
def test_what_is_no_reference(text):
    with pytest.raises(UsageError) as error:
        Reference.parse(text)
    assert code(error) == "VERSION_REFERENCE"


def test_unknown_versions_name_the_known_ones(registry, variant):
    registry.register(variant("model"))
    for reference in (7, "champion", "models:/jade-backbone/7"):
        with pytest.raises(RegistryError) as error:
            registry.get(reference)
        assert code(error) == "VERSION_UNKNOWN"
        assert set(error.value.known) == {"1", "challenger"}


def test_looking_makes_no_database(tmp_path):
    registry = Registry(data_dir=tmp_path, uri=f"sqlite:///{tmp_path / 'x.db'}")
    assert registry.current() is None
    assert registry.versions() == []
    assert registry.history() == []
    with pytest.raises(RegistryError) as error:
        registry.get(1)
    assert code(error) == "VERSION_UNKNOWN"
    assert not (tmp_path / "x.db").exists()


def test_a_version_that_something_else_registered_is_not_served(registry):
    client = registry.place.client
    client.create_registered_model("jade-backbone")
    client.create_model_version("jade-backbone", source=TINY.as_uri())
    with pytest.raises(RegistryError) as error:
        registry.fetch(1)
    assert code(error) == "VERSION_FOREIGN"
    assert registry.versions() == []


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Registry().uri == f"sqlite:///{tmp_path / '.jade' / 'mlflow.db'}"
    assert Registry("sqlite:///here.db").uri == f"sqlite:///{tmp_path / 'here.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert Registry().uri == "http://127.0.0.1:9"
    (tmp_path / "jade.toml").write_text('[registry]\nurl = "sqlite:///other.db"\n')
    assert Registry().uri == f"sqlite:///{tmp_path / 'other.db'}"
    for folder in ("mlruns", "file:///tmp/mlruns", str(tmp_path)):
        with pytest.raises(UsageError) as error:
            Registry(folder)
        assert code(error) == "REGISTRY_URI"


def test_a_server_that_is_away_is_told_at_once(tmp_path):
    with pytest.raises(RegistryError) as error:
        Registry("http://127.0.0.1:9", data_dir=tmp_path).current()
    assert code(error) == "REGISTRY_UNREACHABLE"


# --- what is refused --------------------------------------------------------------------------------------------------
def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)


def not_finite(folder: Path) -> None:
    values = tensors(folder)
    values["model.norm.weight"][3] = float("nan")
    write(folder, values)


def incomplete(folder: Path) -> None:
    values = tensors(folder)
    del values["model.layers.1.mlp.up_proj.weight"]
    write(folder, values)


def other_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"surplus{i}": len(vocabulary) + i for i in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncated, "WEIGHTS_TRUNCATED"),
        (not_finite, "WEIGHTS_NOT_FINITE"),
        (incomplete, "WEIGHTS_INCOMPLETE"),
        (other_tokenizer, "TOKENIZER_MISMATCH"),
        (no_weights, "BACKBONE_NO_SAFETENSORS"),
        (no_config, "BACKBONE_NOT_FOUND"),
        (no_tokenizer, "BACKBONE_LOAD"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_broken_models_are_refused_each_with_its_own_code(registry, variant, damage, expected):
    folder = variant("model")
    damage(folder)
    with pytest.raises(JadeError) as error:
        registry.register(folder)
    assert code(error) == expected
    assert registry.versions() == []
    assert not list(registry.place.data.glob(".staging-*"))


def test_a_child_with_another_vocabulary_than_its_parent_is_refused(registry, variant):
    parent = registry.register(variant("parent"))
    child = variant("child", 0.01)
    tokenizer = json.loads((child / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    a, b = [word for word in vocabulary if word.isalpha()][5:7]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (child / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RegistryError) as error:
        registry.register(child, parents=[parent.content])
    assert code(error) == "TOKENIZER_MISMATCH"
    assert registry.register(variant("good", 0.01), parents=[parent.content]).number == 2


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(truncated, "WEIGHTS_TRUNCATED"), (not_finite, "WEIGHTS_NOT_FINITE"), (no_tokenizer, "VERSION_CORRUPT")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_version_that_was_damaged_in_the_store_never_becomes_champion(registry, variant, damage, expected):
    good, bad = registry.register(variant("good")), registry.register(variant("bad", 0.01))
    registry.promote(good.number, kind="force", reason="test")
    with registry.shelf.bundle(bad) as bundle:
        stored = bundle.model
    damage(stored)
    for attempt in (lambda: registry.fetch(2), lambda: registry.promote(2, kind="force", reason="test")):
        with pytest.raises(RegistryError) as error:
            attempt()
        assert code(error) == expected
    assert registry.current() == 1
    assert registry.fetch("champion")[0].number == 1

    told: list[str] = []
    again = registry.register(variant("again", 0.01), tell=told.append)
    assert (again.number, again.aliases) == (2, ("challenger",)), "the same model: its files are stored anew"
    assert "is damaged" in told[1]
    assert registry.promote(2, kind="force", reason="test").to_version == 2


# --- learning runs ----------------------------------------------------------------------------------------------------
def learning_run(root: Path, model: Path, scores: dict[int, float]) -> Path:
    """The folder of a learning run as `jade improve` leaves it."""
    (root / "models").mkdir(parents=True)
    (root / "evaluations").mkdir()
    for i in scores:
        if i:
            shutil.copytree(model, root / "models" / f"{i:03d}")
        line = json.dumps({"manifest": {"corpus_id": "c1", "jade": "0.1"}})
        (root / "evaluations" / f"{i:03d}.jsonl").write_text(line + "\n")
    facts = {
        "settings": {"seed": 7, "iterations": 10}, "preset": "jade", "model": content_version(TINY),
        "train": "microworld:train?n=100", "held_out": "microworld:validation?n=20",
    }  # fmt: skip
    evaluations = {str(i): {"f1": f1, "calls": 2.0, "plans": {}} for i, f1 in scores.items()}
    state = {"facts": facts, "done": max(scores), "history": [], "evaluations": evaluations}
    (root / "improve.json").write_text(json.dumps(state))
    return root


def test_of_a_learning_run_the_best_is_registered_with_its_lineage(registry, variant, tmp_path):
    parent = registry.register("tiny")
    run = learning_run(tmp_path / "improved", variant("model", 0.01), {0: 0.2, 5: 0.5, 10: 0.4})
    version = registry.register(run)
    manifest = registry.manifest(version.number)
    assert manifest["iteration"] == 5
    assert version.metrics == {"f1": 0.5, "calls": 2.0}
    assert version.as_dict()["parents"] == [content_version(TINY)]
    assert manifest["parents"][0].endswith(parent.weights)
    assert manifest["seeds"] == [7]
    assert manifest["data"]["train"] == "microworld:train?n=100"
    assert manifest["data"]["corpus_id"] == "c1"
    assert registry.register(run / "models" / "005").number == version.number


def test_of_equal_scores_the_one_that_does_less_harm_is_best():
    told = {
        0: {"f1": 0.4, "illegal_rate": 0.0, "calls": 2.0}, 1: {"f1": 0.4, "illegal_rate": 0.2, "calls": 1.0},
        2: {"f1": 0.4, "illegal_rate": 0.0, "calls": 3.4}, 3: {"f1": None, "illegal_rate": 0.0, "calls": 0.0},
    }  # fmt: skip
    assert best_of(told) == 0
    assert best_of(told | {4: {"score": 0.41, "f1": 0.1, "illegal_rate": 0.02, "calls": 9.0}}) == 4
    assert best_of({3: told[3]}) is None


def test_what_the_gate_would_refuse_for_breaking_rules_is_best_only_where_all_that_was_learned_does():
    def at(score, illegal):
        return {"score": score, "illegal_rate": illegal, "calls": 1.0}

    learned = {5: at(0.7, 0.04), 10: at(0.6, 0.03)}
    assert best_of({0: at(0.2, 0.02), **learned}) == 5
    assert best_of({0: at(0.2, 0.01), **learned}) == 10
    assert best_of({0: at(0.2, 0.0), **learned}) == 5  # the start alone keeps the rules: it has learned nothing
    assert best_of(learned) == 5
    assert best_of({0: at(0.8, 0.0), **learned}) == 0


def test_the_best_by_another_outcome_is_the_one_that_learning_names(registry, variant, tmp_path):
    run = learning_run(tmp_path / "improved", variant("model", 0.01), {0: 0.4, 5: 0.3, 10: 0.35})
    state = json.loads((run / "improve.json").read_text())
    for i, score in (("0", -0.5), ("5", -0.1), ("10", -0.2)):
        state["evaluations"][i]["score"] = score
    (run / "improve.json").write_text(json.dumps(state))
    version = registry.register(run)
    assert registry.manifest(version.number)["iteration"] == 5
    assert version.metrics == {"score": -0.1, "f1": 0.3, "calls": 2.0}


def test_a_learning_run_that_made_nothing_better_is_not_registered(registry, variant, tmp_path):
    run = learning_run(tmp_path / "improved", variant("model", 0.01), {0: 0.6, 5: 0.5})
    with pytest.raises(RegistryError) as error:
        registry.register(run)
    assert code(error) == "NOTHING_LEARNED"
    assert registry.manifest(registry.register(run / "models" / "005").number)["iteration"] == 5
    (run / "improve.json").write_text("{}")
    with pytest.raises(UsageError) as unreadable:
        registry.register(run)
    assert code(unreadable) == "RUN_UNREADABLE"


# --- adapters ---------------------------------------------------------------------------------------------------------
def adapter(base: Path, folder: Path) -> Path:
    """A LoRA adapter with weights that change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from jade_graph.backbones.weights import quiet

    torch.manual_seed(0)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(folder)
    return folder


# PEFT asks transformers by a name that this one calls old.
peft_is_behind = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@peft_is_behind
def test_an_adapter_is_stored_small_and_served_merged(registry, variant, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = variant("base", 0.01)
    lora = adapter(base, tmp_path / "lora")
    version = registry.register(lora, base=str(base))
    with registry.shelf.bundle(version) as bundle:
        assert bundle.size < 100_000
        assert bundle.base is not None
    found, folder = registry.fetch(version.number)
    assert content_version(folder) == version.content == found.content
    assert (folder / "tokenizer.json").is_file()
    ids = torch.tensor([[5, 6, 7, 8]])
    merged = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    with torch.inference_mode():
        unchanged = plain(ids).logits
        wanted = PeftModel.from_pretrained(plain, str(lora))(ids).logits
        got = merged(ids).logits
    assert (wanted - unchanged).abs().max() > 0.5
    assert (wanted - got).abs().max() < 0.1, "merged weights are stored in the base's bfloat16"
    shutil.rmtree(registry.place.data / "versions")
    assert content_version(registry.fetch(version.number)[1]) == version.content, "merging is reproducible"
    shutil.rmtree(registry.place.data / "versions")
    values = tensors(base)
    values["model.norm.weight"] += 1
    write(base, values)
    with pytest.raises(RegistryError) as error:
        registry.fetch(version.number)
    assert code(error) == "ADAPTER_BASE"


@peft_is_behind
def test_an_adapter_on_the_wrong_base_is_refused(registry, variant, tmp_path):
    lora = adapter(variant("base"), tmp_path / "lora")
    settings = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": ["no_such_layer"]}))
    with pytest.raises(BackboneError) as error:
        registry.register(lora, base="tiny")
    assert code(error) == "ADAPTER_LOAD"
    assert registry.versions() == []


def test_versions_are_plain_values():
    version = ModelVersion("jade-backbone", 3, "jade-backbone@abc", tags={"jade.parents": "a@1 b@2"})
    assert version.weights == "abc"
    assert version.as_dict()["parents"] == ["a@1", "b@2"]


def test_files_beside_those_that_were_registered_are_not_served(registry, variant):
    version = registry.register(variant("model", 0.01))
    with registry.shelf.bundle(version) as bundle:
        (bundle.model / "chat_template.jinja").write_text("{{ 1 }}")
        (bundle.model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "/etc/passwd"}}')
    _, folder = registry.fetch(1)
    names = {path.name for path in folder.iterdir()}
    assert not names & {"chat_template.jinja", "model.safetensors.index.json"}


@pytest.mark.parametrize(
    "listed", ["[]", "3", '{"model/a": 3}', '{"../../x": "0"}', '{"/etc/passwd": "0"}', "[" * 99_999]
)
def test_a_list_of_files_that_is_none_is_a_damaged_version(registry, variant, listed):
    version = registry.register(variant("model", 0.01))
    with registry.shelf.bundle(version) as bundle:
        (bundle.root / "files.json").write_text(listed)
    with pytest.raises(RegistryError) as caught:
        registry.fetch(1)
    assert code(caught) == "VERSION_CORRUPT"
