"""The bundled models are the repository's: hashes beside them, compared on loading."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

from jade_graph.backbones.folders import BUNDLED
from jade_graph.backbones.named import NAMED, Taught
from jade_graph.backbones.seal import ASSETS, SEAL, require_sealed
from jade_graph.errors import BackboneError

TOOL = Path(__file__).parents[3] / "tools" / "seal.py"


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """Small stand-ins for the bundled models, sealed by the tool."""
    made = tmp_path / "assets"
    for name in ("one", "two"):
        (made / name).mkdir(parents=True)
        for file in ("jade.json", "model.safetensors", "README.md"):
            (made / name / file).write_text(f"{name} {file}")
    hashes = runpy.run_path(str(TOOL))["hashes"]
    hashes.__globals__["ASSETS"] = made
    import json

    (made / SEAL).write_text(json.dumps(hashes()))
    return made


def test_the_recorded_hashes_are_of_the_bundled_files() -> None:
    """Else: python tools/seal.py"""
    bundled = [*BUNDLED.values(), *(each.adapter for each in NAMED.values() if isinstance(each, Taught))]
    assert len(bundled) >= 4
    for folder in bundled:
        assert folder.resolve().parent == ASSETS.resolve()
        require_sealed(folder)


def change(folder: Path) -> None:
    (folder / "model.safetensors").write_text("another")


def lose(folder: Path) -> None:
    (folder / "jade.json").unlink()


def add(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 1 }}")


def unseal(folder: Path) -> None:
    (folder.parent / SEAL).write_text("[")


@pytest.mark.parametrize("harm", [change, lose, add, unseal])
def test_a_bundled_model_that_is_another_is_not_used(assets: Path, harm) -> None:
    require_sealed(assets / "one", assets)
    (assets / "one" / "README.md").write_text("says something else")
    require_sealed(assets / "one", assets)
    harm(assets / "one")
    with pytest.raises(BackboneError) as caught:
        require_sealed(assets / "one", assets)
    assert caught.value.error_code == "MODEL_DAMAGED"
    if harm is not unseal:
        require_sealed(assets / "two", assets)


def test_folders_of_ones_own_have_no_seal(assets: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(assets / "one", tmp_path / "own"))
    change(own)
    require_sealed(own, assets)
