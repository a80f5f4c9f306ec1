"""Servers for the tests: a service over a scripted backbone, on a free port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.serve.app import create_app
from jade_graph.serve.graphs import Graphs
from jade_graph.serve.keys import read_keys
from jade_graph.serve.server import configured, gate_of, listen, url_of
from jade_graph.serve.service import Service
from jade_graph.settings.fields import ServeSettings, Settings

PRESETS = ("jade", "vanilla-rag")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore(tmp_path / "runs.db") as store:
        yield store


Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serving(scripted: Any, passages: Any, store: RunStore) -> Serving:
    """`async with serving(backbone, queue=3) as client`: a client of a running server, with `client.service`."""

    @asynccontextmanager
    async def run(
        backbone: ScriptedBackbone | None = None, *, record: bool = True, tracing: Any = None, **settings: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        served = Settings(backbone="scripted:tests", serve=ServeSettings(port=0, **settings))
        kept = store if record else None

        def build(preset: Any, model: Any) -> JadeGraph:
            return JadeGraph(model, preset=preset, retriever=passages, recorder=kept, k=3)

        presets = [plugins.load("jade.presets", name) for name in PRESETS]
        service = Service(Graphs(build, backbone or scripted(), presets), served, store=kept, tracing=tracing)
        keys = read_keys(served.serve)
        bound = listen(served.serve)
        gate = gate_of(served.serve, service.metrics)
        config = configured(create_app(service, keys=keys, local=not keys), gate, deadline_s=60)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([bound]))
        while not server.started:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)
        try:
            async with httpx.AsyncClient(base_url=url_of(bound), timeout=20) as client:
                client.service, client.server, client.gate = service, server, gate  # type: ignore[attr-defined]
                yield client
        finally:
            server.should_exit = True
            await task

    return run


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """`chat("who?", seed=1)`: a body of /v1/chat/completions."""

    def body(question: str = "who?", **more: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}], **more}

    return body


POLICY = """
ACTIONS = {
    "PL": "<workflow>QDS</workflow>", "QDS": "<q1>who wrote the annals?</q1><q2>when was #1 born?</q2>",
    "QDP": "<q1>l</q1><q2>r</q2>", "QR": "<query>annals</query>", "DS": "<id>Document0</id>",
    "AG": "<answer>Ann Lee</answer>", "AS": "<answer>1950</answer>",
}
def policy(ask):
    return "<workflow>R,AG</workflow>" if ask.role == "PL" and ask.view.depth else ACTIONS[ask.role]
"""


class Process:
    """A `jade serve` of its own."""

    key = "a-key-of-enough-letters"

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None, quiet: bool = True) -> None:
        (folder / "served_policy.py").write_text(POLICY)
        (folder / "docs").mkdir(exist_ok=True)
        (folder / "docs" / "annals.txt").write_text("Ann Lee wrote the annals. She was born in 1950.\n")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("JADE_", "OTEL_"))}
        paths = [str(folder), self.env.get("PYTHONPATH", "")]
        self.env |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "JADE_ENCODER": "hash", "HOME": str(folder)}
        self.env |= {"OMP_NUM_THREADS": "1", **(env or {})}
        self.jade = [sys.executable, "-W", "error", "-m", "jade_graph.cli"]
        self.folder = folder
        if not (folder / ".jade").exists():
            self.run("index", "docs", "--corpus", "annals", "--quiet")
        command = [*self.jade, "serve", "--port", "0", "--corpus", "annals", "--json", *options]
        command += ["--quiet"] if quiet else []
        command += ["--backbone", "scripted:served_policy:policy"]
        with (folder / "err.txt").open("w") as err, (folder / "out.txt").open("w") as out:
            self.process = subprocess.Popen(command, cwd=folder, env=self.env, stdout=out, stderr=err)
        self.told = self._wait()
        self.url = self.told["url"]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.jade, *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _wait(self) -> dict[str, Any]:
        for _ in range(600):
            text = (self.folder / "out.txt").read_text()
            if text.endswith("}\n"):
                return dict(json.loads(text))
            assert self.process.poll() is None, (self.folder / "err.txt").read_text()
            time.sleep(0.1)
        raise AssertionError("jade serve did not start")

    def stop(self, signal: int) -> int:
        self.process.send_signal(signal)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """`jade serve` as an operator starts it, with a key, shared by the tests that only ask it things."""
    started = Process(tmp_path_factory.mktemp("serve"), env={"JADE_SERVE__KEYS": Process.key})
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """`start(folder, *options)`: a `jade serve` for a test that stops it."""
    begun: list[Process] = []

    def make(folder: Path, *options: str, **more: Any) -> Process:
        begun.append(Process(folder, *options, **more))
        return begun[-1]

    yield make
    for each in begun:
        each.process.kill()
        each.process.wait()
