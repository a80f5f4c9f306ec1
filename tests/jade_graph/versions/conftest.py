"""A registry in memory that can fail, and backbones that count how many of them are open."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from jade_graph.backbones import TINY
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError
from jade_graph.registry import Registry
from jade_graph.types import Ask, Completion, Sampling
from jade_graph.versions import VersionedBackbone


class Source:
    """Versions by number; `down` makes every call fail, `fetched` counts downloads."""

    def __init__(self, champion: int | None = 1) -> None:
        self.champion = champion
        self.down = False
        self.calls = 0
        self.fetched: list[int] = []

    def current(self, alias: str = "champion") -> int | None:
        self.calls += 1
        if self.down:
            raise ConnectionError("no route")
        return self.champion

    def fetch(self, reference: str | int) -> tuple[Any, Path]:
        if self.down:
            raise ConnectionError("no route")
        self.fetched.append(int(reference))
        return int(reference), Path(str(reference))


class Counted(ScriptedBackbone):
    """Answers its version's name; tells the model house when it is opened and closed."""

    def __init__(self, house: House, number: int, latency_s: float) -> None:
        def policy(ask: Ask) -> str:
            plan = "QDS" if house.decompose and ask.view.level == "root" else "R,AG"
            actions = {"PL": f"<workflow>{plan}</workflow>", "QDS": "<q1>a?</q1><q2>#1 b?</q2>"}
            return actions.get(ask.role, f"<answer>v{number}</answer>")

        super().__init__(policy, version=f"v{number}", latency_s=latency_s)
        self.house, self.number = house, number
        house.open += 1
        house.most = max(house.most, house.open)

    async def generate(self, prompt_token_ids: Any, sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        if (gate := self.house.gates.get(self.number)) is not None:
            await gate.wait()
        done = await super().generate(prompt_token_ids, sampling, hint=hint)
        if self._closed:
            self.house.closed_under_use += 1
        return done

    async def aclose(self) -> None:
        if not self._closed:
            self.house.open -= 1
        await super().aclose()


class House:
    """Opens backbones; `broken` numbers do not load, and those with a gate answer when it is opened."""

    def __init__(self) -> None:
        self.open = self.most = self.closed_under_use = 0
        self.decompose = False
        self.latency_s = 0.0
        self.loading_s = 0.0
        self.broken: set[int] = set()
        self.gates: dict[int, asyncio.Event] = {}
        self.loaded: list[int] = []

    def __call__(self, number: int, folder: Path) -> ScriptedBackbone:
        time.sleep(self.loading_s)
        if number in self.broken:
            raise BackboneError(f"version {number} is truncated.", code="BACKBONE_LOAD")
        self.loaded.append(number)
        return Counted(self, number, self.latency_s)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def following(source: Source, house: House) -> Any:
    """`following()`: a backbone that follows the source's champion, looking at it every few milliseconds."""
    made: list[VersionedBackbone] = []

    def make(**options: Any) -> VersionedBackbone:
        made.append(VersionedBackbone.open(source, house, **{"poll_s": 0.002, **options}))
        return made[-1]

    yield make
    for backbone in made:
        backbone.reloader.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Registry:
    """A registry of MLflow's own kind; making its database takes seconds, so all tests share an empty one."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder / "mlflow.db")
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", data_dir=folder)


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """`variant("two", change)`: a copy of the bundled model, its weights changed in place by a function."""

    def make(name: str, change: Callable[[dict[str, Any]], None]) -> Path:
        folder = tmp_path / name
        shutil.copytree(TINY, folder)
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make
