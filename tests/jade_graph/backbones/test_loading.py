from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jade_graph.backbones import load_backbone
from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import BackboneError, JadeError, UsageError
from jade_graph.types import Backbone


@pytest.mark.parametrize(
    ("spec", "options", "code"),
    [
        ("nowhere:x", {}, "UNKNOWN_BACKBONE"),
        ("./no/such/folder", {}, "BACKBONE_NOT_FOUND"),
        ("not a hub id!", {}, "BACKBONE_NOT_FOUND"),
        ("hf:", {"devise": "cpu"}, "BACKBONE_OPTION"),
        ("openai:ftp://x#m", {}, "BACKBONE_URL"),
        ("openai:http://127.0.0.1:9/v1#m", {}, "BACKBONE_UNAVAILABLE"),
    ],
)
def test_errors_name_what_to_do(spec: str, options: dict[str, str], code: str) -> None:
    with pytest.raises(JadeError) as caught:
        load_backbone(spec, **options)
    assert caught.value.error_code == code
    assert caught.value.known or caught.value.hint


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        load_backbone("opnai:http://x")
    assert {"hf", "openai", "scripted"} <= set(caught.value.known)
    assert "openai" in caught.value.hint


def test_a_missing_bundled_model_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BUNDLED, "tiny", tmp_path)
    with pytest.raises(BackboneError) as caught:
        load_backbone("tiny")
    assert caught.value.error_code == "BACKBONE_TINY_MISSING"
    assert caught.value.hint == "jade microworld pretrain"


def test_a_folder_and_its_scheme_are_the_same(plain_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain_folder.parent)
    for spec in (str(plain_folder), "./plain", "plain", f"hf:{plain_folder}"):
        backbone = load_backbone(spec, device="cpu", max_context=100)
        assert isinstance(backbone, Backbone)
        assert backbone.max_context == 100
        assert backbone.version.startswith("plain@")


def test_the_bundled_model_is_loaded_by_name(plain_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLED, "tiny", plain_folder)
    assert load_backbone("tiny", device="cpu").version.startswith("plain@")


def test_the_package_is_light() -> None:
    heavy = "{'torch', 'transformers', 'httpx', 'numpy', 'tokenizers'}"
    code = f"import sys, jade_graph.backbones as b; sys.exit(', '.join({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )
