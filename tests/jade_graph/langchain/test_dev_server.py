"""`langgraph dev` serves the graph of langgraph.json: assistants, threads, runs, streams, an interrupt; over loopback.

Run by `make test-langchain`: the server pulls pins of its own. Skipped where it is not installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("langgraph_runtime_inmem", reason="make test-langchain runs these in an environment of their own")

from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from jade_graph.langchain.served import make_checkpointer
from jade_graph.workflow.checkpoint import SafeSerializer

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"JADE_ENCODER": "hash", "JADE_RETRIEVAL": "bm25", "LANGSMITH_TRACING": "false", "OMP_NUM_THREADS": "1"}


def test_the_servers_checkpoints_have_the_allow_list() -> None:
    settings = json.loads((ROOT / "langgraph.json").read_text())
    assert settings["checkpointer"]["path"].endswith("served.py:make_checkpointer")
    assert isinstance(make_checkpointer().serde, SafeSerializer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("app")  # the server writes beside its settings
    (folder / "langgraph.json").write_bytes((ROOT / "langgraph.json").read_bytes())
    (folder / "jade_graph").symlink_to(ROOT / "jade_graph")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "langgraph", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("JADE_")} | SETTINGS
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1"], cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                if httpx.get(f"{url}/ok", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            asyncio.run(asyncio.sleep(0.5))
        else:
            pytest.fail(log.read_text()[-3000:])
        yield url, log
    finally:
        process.terminate()
        process.wait(timeout=30)


async def asked_of(client: LangGraphClient, seen: dict[str, Any]) -> None:
    (assistant,) = await client.assistants.search()
    seen["schema"] = await client.assistants.get_schemas(assistant["assistant_id"])
    thread = (await client.threads.create())["thread_id"]
    seen["answer"] = await client.runs.wait(thread, "jade", input={"question": "Who is the mayor?"})
    asked = {"question": "Who made it?"}
    seen["nodes"] = [
        node
        async for event in client.runs.stream(thread, "jade", input=asked, stream_mode=["updates"])
        if event.event == "updates"
        for node in event.data
    ]
    seen["history"] = await client.threads.get_history(thread)
    plain = await client.assistants.create("jade", config={"configurable": {"preset": "vanilla-rag", "k": 2}})
    seen["fixed"] = [
        node
        async for event in client.runs.stream(None, plain["assistant_id"], input=asked, stream_mode=["updates"])
        if event.event == "updates"
        for node in event.data
    ]
    held = (await client.threads.create())["thread_id"]
    await client.runs.wait(held, "jade", input=asked, interrupt_before=["AG", "QDS", "QDP"])
    seen["next"] = (await client.threads.get_state(held))["next"]
    seen["resumed"] = await client.runs.wait(held, "jade", input=None)


def test_assistants_threads_runs_streams_and_an_interrupt(server: tuple[str, Path]) -> None:
    url, log = server

    async def scenario() -> dict[str, Any]:
        seen: dict[str, Any] = {}
        async with get_client(url=url, api_key=None) as client:
            await asked_of(client, seen)
        return seen

    seen = asyncio.run(scenario())
    assert seen["schema"]["input_schema"]["required"] == ["question"]
    assert seen["answer"]["status"] == "answered"
    assert seen["answer"]["answer"]
    assert seen["nodes"][:2] == ["begin", "select"]  # a further question on the thread
    assert seen["nodes"][-1] == "finish"
    assert len(seen["history"]) >= len(seen["nodes"])
    assert seen["fixed"] == ["select", "R", "AG", "select", "finish"]  # no planner in this preset
    assert seen["next"]
    assert set(seen["next"]) <= {"AG", "QDS", "QDP"}
    assert seen["resumed"]["status"] == "answered"
    assert "unregistered type" not in log.read_text()
