"""A project folder that was moved or copied: read where it is, and never written where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jade_graph.errors import RegistryError
from jade_graph.registry import Registry


def moved(registry: Registry, to: Path, *, copied: bool) -> Registry:
    old = registry.place.data
    (shutil.copytree if copied else shutil.move)(str(old), str(to))
    return Registry(f"sqlite:///{to / 'mlflow.db'}", data_dir=to)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "mlflow.db" not in p.name}


@pytest.mark.parametrize("copied", [False, True])
def test_a_registry_that_was_moved(registry: Registry, variant, tmp_path: Path, copied: bool) -> None:
    model = variant("model", 0.01)
    version = registry.register(model)
    registry.promote(1, kind="force", reason="first", files={"note.txt": "why"})
    old = registry.place.data
    there = moved(registry, tmp_path / "new place", copied=copied)
    if copied:
        shutil.rmtree(next(old.glob("mlflow/*/models")))  # a copy reads its own files
    before = files(old)

    found, folder = there.fetch("champion")
    assert found.content == version.content
    assert all(tmp_path / "new place" in p.resolve().parents for p in folder.iterdir())
    assert there.evidence(there.history()[0])["note.txt"].read_text() == "why"
    assert there.register(model).number == 1

    for store in (lambda: there.register(variant("other", 0.02)), lambda: there.promote(1, kind="force", reason="x")):
        with pytest.raises(RegistryError) as caught:
            store()
        assert caught.value.error_code in ("REGISTRY_MOVED", "PROMOTION_SAME")
    stored = next((tmp_path / "new place").rglob("model.safetensors"))
    whole = stored.read_bytes()
    stored.write_bytes(b"cut")
    with pytest.raises(RegistryError, match="REGISTRY_MOVED"):
        there.register(model)
    stored.write_bytes(whole)
    assert files(old) == before

    assert there.relocate() > 3
    assert there.relocate() == 0
    second = there.register(variant("third", 0.03))
    assert second.number == 2
    assert there.fetch(2)[0].content == second.content
    assert str(old) not in second.tags["jade.source"]
    assert files(old) == before


def test_a_registry_in_its_place_has_nothing_to_relocate(registry: Registry, variant) -> None:
    assert registry.relocate() == 0
    registry.register(variant("model", 0.01))
    assert registry.relocate() == 0
