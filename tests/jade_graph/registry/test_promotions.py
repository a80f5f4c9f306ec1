"""The promotion log: who may promote, rolling back, two at once, killed at any point."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from jade_graph.errors import JadeError, RegistryError, UsageError
from jade_graph.registry import Registry
from jade_graph.registry.place import Place
from jade_graph.registry.promotions import DONE, OPEN, VOID


def code(error: pytest.ExceptionInfo[JadeError]) -> str:
    return error.value.error_code


def force(registry: Registry, number: int, **options):
    return registry.promote(number, kind="force", reason="test", **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A data folder with four versions; nobody is champion."""
    from jade_graph.backbones import TINY

    from .conftest import tensors, write

    root = tmp_path_factory.mktemp("stored")
    data = root / "data"
    data.mkdir()
    shutil.copy(empty_database, data / "mlflow.db")
    registry = Registry(f"sqlite:///{data / 'mlflow.db'}", data_dir=data)
    for i in range(4):
        folder = root / f"model{i}"
        shutil.copytree(TINY, folder)
        values = tensors(folder)
        values["model.norm.weight"] = values["model.norm.weight"] * (1 + 0.1 * i)
        write(folder, values)
        registry.register(folder)
    return data


@pytest.fixture
def registry(stored: Path, tmp_path: Path) -> Registry:
    """Four versions in a folder of their own."""
    data = tmp_path / "data"
    shutil.copytree(stored, data)
    found = Registry(f"sqlite:///{data / 'mlflow.db'}", data_dir=data)
    assert found.relocate() > 0
    return found


def again(registry: Registry) -> Registry:
    """Another process's view of the same registry."""
    return Registry(registry.uri, data_dir=registry.place.data)


# --- promoting and rolling back ---------------------------------------------------------------------------------------
def test_a_promotion_is_logged_with_its_evidence(registry):
    assert registry.get("challenger").number == 4
    first = registry.promote(1, kind="first", evidence={"first": {"mean": 0.2}}, summary="passed", expected=None)
    done = registry.promote(4, evidence={"gain": {"difference": 0.1}}, files={"verdict.json": "{}"}, expected=1)
    assert registry.current() == 4
    assert registry.get("champion").aliases == ("champion",), "a champion is no challenger any more"
    assert [e.number for e in registry.history()] == [done.number, first.number]
    newest = registry.history()[0]
    assert (newest.kind, newest.from_version, newest.to_version) == ("promote", 1, 4)
    assert newest.evidence == {"gain": {"difference": 0.1}}
    assert "@" in newest.who
    files = registry.evidence(newest)
    assert set(files) == {"verdict.json", "evidence.json"}
    assert files["verdict.json"].read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"kind": "force"}, "PROMOTION_REASON"), ({}, "PROMOTION_EVIDENCE"), ({"kind": "first"}, "PROMOTION_EVIDENCE")],
)
def test_nothing_is_promoted_without_a_ground(registry, options, expected):
    with pytest.raises(UsageError) as error:
        registry.promote(1, **options)
    assert code(error) == expected
    assert registry.current() is None
    assert registry.history() == []


def test_rolling_back_goes_further_back_each_time(registry):
    for number in (1, 2, 3):
        force(registry, number)
    assert [registry.rollback().to_version for _ in range(2)] == [2, 1]
    with pytest.raises(RegistryError) as error:
        registry.rollback()
    assert code(error) == "ROLLBACK_NOTHING"
    force(registry, 4)
    assert registry.rollback(reason="worse in production").to_version == 1
    newest = registry.history()[0]
    assert (newest.kind, newest.reason, newest.from_version) == ("rollback", "worse in production", 4)
    assert registry.current() == 1


def test_rolling_back_returns_to_a_version_that_was_champion_twice(registry):
    for number in (1, 2, 1):
        force(registry, number)
    assert [registry.rollback().to_version for _ in range(2)] == [2, 1]


def test_rolling_back_before_anything_happened(registry):
    with pytest.raises(RegistryError) as error:
        registry.rollback()
    assert code(error) == "ROLLBACK_NOTHING"


def test_an_alias_that_was_moved_by_hand_is_rolled_back_to_the_log(registry):
    force(registry, 1)
    force(registry, 2)
    registry.place.client.set_registered_model_alias("jade-backbone", "champion", "4")
    assert registry.rollback().to_version == 2


# --- at the same time -------------------------------------------------------------------------------------------------
def test_the_champion_must_be_the_one_that_was_compared_with(registry):
    force(registry, 1)
    force(again(registry), 2)
    with pytest.raises(RegistryError) as error:
        registry.promote(3, evidence={"n": 1}, expected=1)
    assert code(error) == "PROMOTION_OUTDATED"
    with pytest.raises(RegistryError) as error:
        registry.promote(3, kind="first", evidence={"n": 1}, expected=None)
    assert code(error) == "PROMOTION_OUTDATED"
    with pytest.raises(RegistryError) as error:
        force(registry, 2)
    assert code(error) == "PROMOTION_SAME"
    assert registry.current() == 2
    assert len(registry.history()) == 2


def test_of_many_promotions_against_one_champion_one_is_made(registry):
    force(registry, 1)
    rivals = [again(registry) for _ in range(3)]
    for rival in rivals:
        assert rival.current() == 1  # connects
    start = threading.Barrier(len(rivals))

    def attempt(pair: tuple[Registry, int]) -> str:
        rival, number = pair
        start.wait()
        try:
            rival.promote(number, evidence={"n": 1}, expected=1)
        except RegistryError as error:
            return error.error_code
        return "made"

    with ThreadPoolExecutor(len(rivals)) as pool:
        came = list(pool.map(attempt, zip(rivals, (2, 3, 4), strict=True)))
    assert sorted(came) == ["PROMOTION_OUTDATED", "PROMOTION_OUTDATED", "made"]
    winner = (2, 3, 4)[came.index("made")]
    assert registry.current() == winner
    assert [e.to_version for e in registry.history()] == [winner, 1]


def test_without_a_common_lock_the_log_decides(registry, monkeypatch):
    """Another host, which our lock does not reach, promotes after we looked and before we wrote."""
    force(registry, 1)
    rival, client = again(registry), registry.place.client
    write = client.create_model_version

    def between(*args, **kwargs):
        monkeypatch.setattr(client, "create_model_version", write)
        force(rival, 2)
        return write(*args, **kwargs)

    monkeypatch.setattr(client, "create_model_version", between)
    monkeypatch.setattr(Place, "locked", lambda *_: nullcontext())
    with pytest.raises(RegistryError) as error:
        registry.promote(3, evidence={"n": 1}, expected=1)
    assert code(error) == "PROMOTION_CONFLICT"
    assert registry.current() == 2
    assert [e.to_version for e in registry.history()] == [2, 1]
    assert force(registry, 3).to_version == 3, "and the next one is not in the way of what was void"


def test_the_lock_is_waited_for_and_then_told(registry):
    force(registry, 1)
    with registry.place.locked("a test"), pytest.raises(RegistryError) as error, again(registry).place.locked("x", 0.1):
        pass
    assert code(error) == "REGISTRY_BUSY"


# --- killed -----------------------------------------------------------------------------------------------------------
DIE = """
import os, signal, sys
from jade_graph.registry import Registry, checking, registering
uri, data, point, what, argument = sys.argv[1:]
registry = Registry(uri, data_dir=data)
client = registry.place.client
# What is tested is the order of effects: no need to load a model for it.
checking.check_model = lambda folder: None
registering._profile = lambda folder: "compact"
real = getattr(client, point.removeprefix("after "))

def die(*args, **kwargs):
    if point.startswith("after "):
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(client, point.removeprefix("after "), die)
if what == "register":
    registry.register(argument)
else:
    registry.promote(argument, kind="force", reason="killed")
"""


def killed(registry: Registry, point: str, what: str, argument: object) -> None:
    """Do something in another process, which is killed when it calls `point` (or right after)."""
    command = [sys.executable, "-c", DIE, registry.uri, str(registry.place.data), point, what, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def states(registry: Registry) -> list[str]:
    return [row.tags["jade.state"] for row in sorted(registry.log._rows(), key=lambda row: int(row.version))]


def test_killed_before_the_alias_moved(registry):
    force(registry, 1)
    killed(registry, "set_registered_model_alias", "promote", 2)
    assert registry.current() == 1
    assert states(registry) == [DONE, OPEN]
    assert [e.to_version for e in registry.history()] == [1]
    assert force(registry, 3).to_version == 3
    assert states(registry) == [DONE, VOID, DONE]
    assert registry.rollback().to_version == 1


def test_killed_after_the_alias_moved(registry):
    force(registry, 1)
    killed(registry, "after set_registered_model_alias", "promote", 2)
    assert registry.current() == 2
    assert states(registry) == [DONE, OPEN]
    assert [e.to_version for e in registry.history()] == [2, 1], "it happened, so the log has it"
    assert registry.rollback().to_version == 1
    assert states(registry) == [DONE, DONE, DONE]


POINTS = [
    "create_logged_model", "log_model_artifacts", "after log_model_artifacts", "finalize_logged_model",
    "create_model_version", "after create_model_version", "set_registered_model_alias",
]  # fmt: skip


@pytest.mark.parametrize(
    "point", [p if p in ("create_model_version",) else pytest.param(p, marks=pytest.mark.slow) for p in POINTS]
)
def test_a_killed_registration_leaves_a_whole_version_or_none(registry, variant, point):
    folder = variant("model", 0.3)
    force(registry, 1)
    killed(registry, point, "register", folder)
    seen = again(registry)
    assert seen.get("challenger").number == 4, "an alias names what was there before"
    visible = [v.number for v in seen.versions()]
    assert visible in ([4, 3, 2, 1], [5, 4, 3, 2, 1])
    for number in visible:
        seen.fetch(number)  # whole: every file is checked
    version = seen.register(folder)
    assert version.number == 5
    assert version.aliases == ("challenger",), "what was left undone is done"
    assert not list(seen.place.data.glob(".staging-*")), "what the dead left is cleared away"
    assert seen.current() == 1


def test_an_alias_that_is_owed_is_not_taken_from_a_newer_version(registry, variant):
    folder, newer = variant("model", 0.3), variant("newer", 0.4)
    killed(registry, "set_registered_model_alias", "register", folder)
    seen = again(registry)
    assert seen.register(newer).number == 6
    assert seen.register(folder).aliases == ()
    assert seen.get("challenger").number == 6
    force(seen, 6)
    assert seen.register(folder).aliases == (), "it is owed nothing any more"


def test_two_who_register_one_model_at_once_get_one_version(registry, variant, monkeypatch):
    folder = variant("model", 0.3)
    rivals = [again(registry) for _ in range(2)]
    for rival in rivals:
        assert rival.get(1).number == 1
    start = threading.Barrier(2)

    def attempt(rival: Registry) -> int:
        start.wait()
        return rival.register(folder).number

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(attempt, rivals)) == [5, 5]
    assert len(registry.versions()) == 5


def test_a_promotion_while_a_version_is_being_registered(registry, variant, monkeypatch):
    """Uploading holds no lock: a promotion meanwhile is made, and what is half registered is invisible to it."""
    force(registry, 1)
    client, other = registry.place.client, again(registry)
    upload = client.log_model_artifacts

    def slowly(*args):
        upload(*args)
        assert force(other, 2).to_version == 2
        assert len(other.versions()) == 4
        with pytest.raises(RegistryError):
            force(other, 5)

    monkeypatch.setattr(client, "log_model_artifacts", slowly)
    assert registry.register(variant("model", 0.3)).number == 5
    assert registry.current() == 2
