"""The same registry behind a real `mlflow server` on loopback, in processes of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jade_graph.backbones.folders import content_version
from jade_graph.errors import RegistryError
from jade_graph.registry import Registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    root = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, root / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}",
        "--artifacts-destination", str(root / "artifacts"), "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    env = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            try:
                if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
            assert process.poll() is None, (root / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_versions_promotions_and_files_over_http(server, variant, tmp_path):
    here = Registry(server, data_dir=tmp_path / "here")
    assert here.current() is None
    assert here.history() == []
    one, two = here.register(variant("one", 0.01)), here.register(variant("two", 0.02), metrics={"f1": 0.5})
    assert (one.number, two.number) == (1, 2)
    assert here.register(variant("same", 0.01)).number == 1
    assert [v.metrics for v in here.versions()] == [{"f1": 0.5}, {}]
    first = here.promote(1, kind="first", evidence={"n": 9}, expected=None)
    assert first.who

    there = Registry(server, data_dir=tmp_path / "there")  # another machine: nothing is shared but the server
    version, folder = there.fetch("champion")
    assert folder.is_relative_to(tmp_path / "there")
    assert content_version(folder) == version.content == one.content
    there.promote(2, evidence={"n": 9}, files={"verdict.json": "{}"}, expected=1)
    with pytest.raises(RegistryError) as error:
        here.promote(2, evidence={"n": 9}, expected=1)
    assert error.value.error_code == "PROMOTION_OUTDATED"
    assert set(here.evidence(here.history()[0])) == {"evidence.json", "verdict.json"}
    assert here.rollback().to_version == 1
    assert there.current() == 1
    assert [e.kind for e in there.history()] == ["rollback", "promote", "first"]
    assert there.manifest(2)["metrics"] == {"f1": 0.5}

    # A downloaded copy that went bad is fetched again.
    damaged = folder.parent / "bundle" / "model" / "model.safetensors"
    os.truncate(damaged, 1000)
    assert content_version(there.fetch(1)[1]) == one.content
