"""Signals to a real process: the first finishes what is in flight, the second cancels it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from jade_graph.runs.store import RunStore

SCRIPT = """
import sys
from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.settings.fields import ServeSettings, Settings
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.serve.app import create_app
from jade_graph.serve.graphs import Graphs
from jade_graph.serve.server import listen, serve
from jade_graph.serve.service import Service
from jade_graph.runs.store import RunStore

settings = Settings(backbone="scripted:x", serve=ServeSettings(port=0))
backbone = ScriptedBackbone(lambda ask: "<answer>Ann Lee</answer>", latency_s=float(sys.argv[2]))
with RunStore(sys.argv[1]) as store, listen(settings.serve) as bound:
    preset = plugins.load("jade.presets", "jade")
    graphs = Graphs(lambda p, b: JadeGraph(b, preset=p, recorder=store), backbone, [preset])
    service = Service(graphs, settings, store=store)
    port = bound.getsockname()[1]
    serve(create_app(service, local=True), bound, deadline_s=30, started=lambda: print(port, flush=True),
          stopping=lambda again: service.stop(now=again))
print("closed", flush=True)
"""
BODY = {"messages": [{"role": "user", "content": "who?"}], "jade": {"plan": "AG"}}


@pytest.fixture
def started(tmp_path):
    processes = []

    def start(latency_s: float) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / "runs.db"), str(latency_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, f"http://127.0.0.1:{int(process.stdout.readline())}"

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def in_flight(url: str) -> None:
    end = time.monotonic() + 20
    while httpx.get(f"{url}/healthz").json()["running"] != 2:
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(url: str, answers: list[object]) -> threading.Thread:
    def post() -> None:
        try:
            answers.append(httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=30).status_code)
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


@pytest.mark.parametrize("twice", [False, True])
def test_the_first_signal_finishes_what_is_in_flight_and_the_second_cancels_it(started, tmp_path, twice):
    process, url = started(60.0 if twice else 0.8)
    answers: list[object] = []
    asking = ask(url, answers)
    alone = httpx.post(f"{url}/v1/runs", json={"question": "who?", "plan": "AG"}).json()["id"]
    in_flight(url)
    process.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    asking.join(30)
    assert process.wait(30) == 0
    assert process.stdout.read() == "closed\n"
    with RunStore(tmp_path / "runs.db") as store:
        ended = {row["id"]: (row["status"], row["error"]) for row in store.list_runs()}
    assert len(ended) == 2
    if twice:
        assert answers == ["RemoteProtocolError"]
        assert set(ended.values()) == {("failed", "CANCELLED")}
    else:
        assert answers == [200]
        assert set(ended.values()) == {("answered", None)}
    assert alone in ended
