"""Small parts shared by the engine's tests: a policy made of a dict, a retriever of numbered passages, PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.types import Ask, Passage

DEFAULTS: dict[str, str] = {
    "PL": "<workflow>R,AG</workflow>",
    "QDS": "<q1>who made X?</q1><q2>when was #1 born?</q2>",
    "QDP": "<q1>left?</q1><q2>right?</q2>",
    "QR": "<query>rewritten</query>",
    "DS": "<id>Document0</id>",
    "AG": "<answer>Ann Lee</answer>",
    "AS": "<answer>1950</answer>",
}


class Passages:
    """A retriever that answers any query with passages p0, p1, .. and remembers what it was asked."""

    corpus_id = "numbered"

    def __init__(self) -> None:
        self.queries: list[str] = []

    async def search(self, query: str, k: int) -> list[Passage]:
        self.queries.append(query)
        return [Passage(f"p{i}", f"passage {i} about {query}", score=1.0 / (i + 1)) for i in range(k)]


@pytest.fixture
def passages() -> Passages:
    return Passages()


@pytest.fixture
def scripted() -> Callable[..., ScriptedBackbone]:
    """`scripted(PL=.., AG=..)`: an action per role, or a function of the ask; the rest are legal defaults."""

    def make(options: Mapping[str, Any] | None = None, **actions: str | Callable[[Ask], str]) -> ScriptedBackbone:
        script = {**DEFAULTS, **actions}

        def policy(ask: Ask) -> str:
            action = script[ask.role]
            return action if isinstance(action, str) else action(ask)

        return ScriptedBackbone(policy, **(options or {}))

    return make


def _program(name: str) -> str | None:
    found = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    return next((path for path in found if path), None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a fresh server on a loopback port; tests are skipped where PostgreSQL is not installed."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = next((u.pw_name for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody")), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")
    folder = Path(tempfile.mkdtemp(prefix="jade-pg-", dir="/tmp"))  # the socket's path has a length limit
    data = folder / "data"
    try:
        if user is not None:
            shutil.chown(folder, user)
        subprocess.run(
            [initdb, "-D", str(data), "-U", "jade", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(folder)]
        process = subprocess.Popen(
            [server, "-D", str(data), "-p", str(port), *options],
            user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"postgresql://jade@127.0.0.1:{port}/postgres"
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    import time

    import psycopg

    for _ in range(200):
        if process.poll() is not None:
            pytest.skip("the PostgreSQL server does not start here")
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.skip("the PostgreSQL server does not answer here")
