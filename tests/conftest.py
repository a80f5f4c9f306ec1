"""Parts shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What a terminal says of itself is no part of a test: the same output in a shell, in CI and under FORCE_COLOR.
for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine must not fail a property: no deadlines, and the same examples every time.
settings.register_profile("jade", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jade")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; tests that need it are skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it, to be copied: to make one takes seconds."""
    from jade_graph.registry.place import Place

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    Place.find(f"sqlite:///{file}", file.parent).client.search_experiments()
    return file


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry point that pyproject.toml declares, also one that was added since the last installation."""
    import tomllib
    from importlib.metadata import EntryPoint

    from jade_graph import plugins

    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    points = tomllib.loads(file.read_text("utf-8"))["project"]["entry-points"]
    installed = plugins._found

    def found(group: str) -> dict[str, EntryPoint]:
        return {**installed(group), **{n: EntryPoint(n, v, group) for n, v in points.get(group, {}).items()}}

    monkeypatch.setattr(plugins, "_found", found)
