from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jade_graph.backbones import load_backbone
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench.generate import run
from jade_graph.bench.roles import AT_ONCE, COPIES, distinct_tokens, recorded
from jade_graph.errors import UsageError
from jade_graph.sync import run_sync


class Servers(ThreadingHTTPServer):
    """Answers as vLLM and llama.cpp do, and keeps what it was asked."""

    asked: list[tuple[str, dict[str, Any]]]


@pytest.fixture
def servers() -> Iterator[Servers]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "named"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append((self.path, body))
            self._answer({})

        def _answer(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    found = Servers(("127.0.0.1", 0), Handler)
    found.asked = []
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_all_sides_are_asked_for_the_same(servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.server_port}"
    figures = run(model="tiny", prompts="roles", quick=True, vllm=url, llama=url)
    sides = ("ours", "generate", "vllm", "llama")
    speeds = {f"{side}_tokens_per_s_{n}" for side in sides for n in AT_ONCE}
    ratios = {f"over_{side}_at_{n}" for side in sides[1:] for n in AT_ONCE}
    rest = {"floor_ratio", "prompt_tokens", "new_tokens", "repeated_share", "threads", "matmul_gflops", "parameters"}
    assert figures.keys() == speeds | ratios | rest
    assert all(value > 0 for value in figures.values())
    assert 0.5 < figures["repeated_share"] < 1, "four runs of each question"
    by_path: dict[str, list[tuple[list[int], int]]] = {}
    for path, body in servers.asked:
        by_path.setdefault(path, []).append((body["prompt"], body.get("max_tokens") or body["n_predict"]))
    vllm, llama = (sorted(by_path[path]) for path in ("/v1/completions", "/completion"))
    assert vllm == llama
    assert all(body["ignore_eos"] for _, body in servers.asked)
    assert {body["model"] for path, body in servers.asked if path == "/v1/completions"} == {"named"}


def test_calls_are_those_of_the_oracle_in_the_models_own_words() -> None:
    backbone = load_backbone("tiny")
    assert isinstance(backbone, HFBackbone)
    runs = run_sync(recorded(backbone, 3, 1))
    assert len(runs) == 3 * COPIES
    assert runs[0] == runs[COPIES - 1] != runs[COPIES]
    plan = runs[0][0]
    assert backbone.decode(plan.prompt).startswith("plan")
    assert 0 < plan.new_tokens < 20
    assert len(runs[0]) > 1
    run_sync(backbone.aclose())


def test_distinct_tokens() -> None:
    assert distinct_tokens([[1, 2, 3], [1, 2, 3], [1, 2, 4, 5], [6]]) == 3 + 2 + 1
    assert distinct_tokens([[1, 2], [1, 2, 3]]) == 3
    assert distinct_tokens([]) == 0


def test_unknown_prompts_are_refused() -> None:
    with pytest.raises(UsageError, match="BENCH_PROMPTS"):
        run(prompts="role")
