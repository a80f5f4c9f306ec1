"""The manifest: written in one step, read strictly, found by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jade_graph.errors import RetrievalError, UsageError
from jade_graph.retrieval.manifest import CorpusManifest, corpus_folder, list_corpora, read_manifest


def manifest(name: str = "notes", **changes: object) -> CorpusManifest:
    values: dict[str, object] = {
        "name": name, "corpus_id": "c", "content_id": "k", "generation": "g", "encoder": "e", "encoder_spec": "hash",
        "dim": 4, "dtype": "float32", "passages": 3, "documents": 2, "skipped": ({"source": "a", "reason": "b"},),
    }  # fmt: skip
    return CorpusManifest(**{**values, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    written = manifest(chunking={"size": 160, "overlap": 32})
    written.write(tmp_path)
    assert read_manifest(tmp_path) == written
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1, "skipped": []}', "nonsense"])
def test_a_damaged_manifest_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RetrievalError) as caught:
        read_manifest(tmp_path)
    assert caught.value.error_code == "CORPUS_BROKEN"
    assert "manifest.json" in str(caught.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest().as_dict(), "schema_version": 99, "new": 1}))
    with pytest.raises(RetrievalError) as caught:
        read_manifest(tmp_path)
    assert caught.value.error_code == "CORPUS_NEWER"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65, "é", "a\n", "C:\\x"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        corpus_folder(name, tmp_path)
    assert caught.value.error_code == "BAD_CORPUS_NAME"


def test_listing_leaves_broken_and_unfinished_ones_out(tmp_path: Path) -> None:
    assert list_corpora(tmp_path) == []
    for name in ("b", "a", "broken", "unfinished"):
        corpus_folder(name, tmp_path).mkdir(parents=True)
    for name in ("b", "a"):
        manifest(name).write(corpus_folder(name, tmp_path))
    (corpus_folder("broken", tmp_path) / "manifest.json").write_text("{")
    assert [m.name for m in list_corpora(tmp_path)] == ["a", "b"]
