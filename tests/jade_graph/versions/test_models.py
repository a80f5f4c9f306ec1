"""Real weights: what is broken is refused by name while the champion serves, and MLflow's alias is followed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jade_graph.backbones import TINY, load_backbone
from jade_graph.errors import BackboneError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.registry import Registry
from jade_graph.types import Run
from jade_graph.versions import Smoke, VersionedBackbone
from tests.waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

WORLD = make_world("validation", 0)
QUESTIONS = make_questions(WORLD, 4, seed=0)
WORDS = WordSearch(WORLD.passages)


class Shelf:
    """Versions in folders."""

    champion = 1

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    def current(self, alias: str = "champion") -> int:
        return self.champion

    def fetch(self, reference: str | int) -> tuple[Any, Path]:
        return reference, self.folders[int(reference) - 1]


def louder(weights: dict[str, Any]) -> None:
    name = next(name for name in sorted(weights) if "norm" in name)
    weights[name] = weights[name] * 1.05


def with_nan(weights: dict[str, Any]) -> None:
    weights[next(name for name in sorted(weights) if "q_proj" in name)][0] = float("nan")


def forgetful(weights: dict[str, Any]) -> None:
    for name in weights:
        if "embed" not in name and "norm" not in name:
            weights[name] = weights[name] * 0


def unchanged(weights: dict[str, Any]) -> None:
    return None


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("weights", "files", "codes"),
    [
        (with_nan, None, {"SMOKE_NOT_FINITE"}),
        (forgetful, None, {"SMOKE_ILLEGAL", "SMOKE_NO_ANSWER", "SMOKE_FAILED_RUN"}),
        (unchanged, truncated, {"WEIGHTS_TRUNCATED"}),
        (unchanged, no_tokenizer, {"BACKBONE_LOAD"}),
    ],
    ids=["nan", "forgetful", "truncated", "no tokenizer"],
)
async def test_a_broken_version_is_refused_and_the_champion_serves(
    variant: Callable[..., Path], weights: Any, files: Any, codes: set[str]
) -> None:
    broken = variant("broken", weights)
    if files is not None:
        files(broken)
    shelf = Shelf(TINY, broken)
    backbone = VersionedBackbone.open(shelf, lambda v, folder: load_backbone(str(folder)), poll_s=0.02)
    graph = JadeGraph(backbone, retriever=WORDS)
    before = await graph.arun(QUESTIONS[0])
    shelf.champion = 2
    await until(lambda: backbone.status().alarm is not None)
    assert backbone.status().alarm.code in codes
    assert backbone.status().held == {1: 0}
    after = await graph.arun(QUESTIONS[0])
    assert (after.answer, after.backbone_version) == (before.answer, before.backbone_version)
    assert after.backbone_version == backbone.version
    await graph.aclose()


async def test_a_least_f1_over_the_smoke_questions(variant: Callable[..., Path]) -> None:
    shelf = Shelf(TINY, variant("two", louder))
    backbone = VersionedBackbone.open(shelf, lambda v, folder: load_backbone(str(folder)), smoke=Smoke(f1=0.99))
    with pytest.raises(BackboneError) as caught:
        JadeGraph(backbone, retriever=WORDS)
    assert caught.value.error_code == "SMOKE_F1"
    await backbone.aclose()


async def test_the_alias_of_a_registry_is_followed(registry: Registry, variant: Callable[..., Path]) -> None:
    one = registry.register("tiny")
    two = registry.register(variant("two", louder))
    registry.promote(one.number, kind="force", reason="test")
    spec = f"models:/{registry.model}@champion"
    backbone = load_backbone(spec, registry=registry, poll_s=0.02)
    assert isinstance(backbone, VersionedBackbone)
    fixed = load_backbone(f"models:/{registry.model}/{one.number}", registry=registry)
    still = load_backbone(spec, registry=registry, follow=False)
    graph = JadeGraph(backbone, retriever=WORDS)
    found: list[Run] = []
    for move, version in (
        (None, one),
        (lambda: registry.promote(two.number, kind="force", reason="test"), two),
        (registry.rollback, one),
    ):
        if move is not None:
            await asyncio.to_thread(move)
        await until(lambda version=version: backbone.version == version.content)
        found += [await graph.arun(q) for q in QUESTIONS[:2]]
    assert [run.backbone_version for run in found] == [v.content for v in (one, one, two, two, one, one)]
    assert {run.status for run in found} == {"answered"}
    assert fixed.version == still.version == one.content
    assert not isinstance(fixed, VersionedBackbone)
    for each in (graph, fixed, still):
        await each.aclose()


@pytest.mark.slow
async def test_a_server_that_goes_away_and_comes_back(
    tmp_path: Path, variant: Callable[..., Path], empty_database: Path
) -> None:
    """A real `mlflow server` is killed: the graph serves on, and follows again when it is back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "store")]
    url = f"http://127.0.0.1:{port}"

    def serve() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, start_new_session=True, cwd=tmp_path)
        end = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                    return process
            except httpx.HTTPError:
                assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)

    def kill(process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, 9)
        process.wait()

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    process = await asyncio.to_thread(serve)
    try:
        registry = Registry(url, data_dir=tmp_path / "data")
        one, two = registry.register("tiny"), registry.register(variant("two", louder))
        registry.promote(one.number, kind="force", reason="test")
        shutil.rmtree(tmp_path / "data" / "versions", ignore_errors=True)  # as on another machine
        backbone = load_backbone(f"models:/{registry.model}@champion", registry=registry, poll_s=0.2)
        assert isinstance(backbone, VersionedBackbone)
        graph = JadeGraph(backbone, retriever=WORDS)
        kill(process)
        await until(lambda: backbone.status().outages > 0)
        assert (await graph.arun(QUESTIONS[0])).backbone_version == one.content
        assert backbone.status().ok
        process = await asyncio.to_thread(serve)
        await asyncio.to_thread(lambda: registry.promote(two.number, kind="force", reason="test"))
        await until(lambda: backbone.version == two.content)
        assert (await graph.arun(QUESTIONS[0])).backbone_version == two.content
        assert backbone.status().outages == 0
        await graph.aclose()
    finally:
        kill(process)
