"""What HTTP costs: the same graph behind `jade serve` and called in process, and a server under four times its load.

Invariant: both sides run the same graph with the same store settings on the same kind of event loop, in alternating
rounds of one command; the server is a process of its own, its clients are not in it. Latencies are wall time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jade_graph.bench.streaming import FIRST_TOKENS, First, Streams, mark
from jade_graph.errors import BackboneError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore

CLIENTS = (1, 16, 64)
OVERLOAD = 4.0
_PATIENCE_S = 120.0
_REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s"
)

Call = Callable[[int], Awaitable[None]]


def run(*, model: str = "tiny", seconds: float = 60.0, quick: bool = False) -> dict[str, float]:
    """Measure a server over loopback.

    Args:
        model: "tiny", the bundled model over microworld; "instant", a backbone that computes nothing, so that all that
            is left is the graph, the record and HTTP.
        seconds: how long the overload lasts.
        quick: two short rounds, and an overload of at most 6 seconds.

    Returns:
        `overhead_p50_ms_at_1`: how much longer a request of one client takes, medians of the rounds' medians;
        `throughput_ratio_to_in_process_at_64`: requests per second of 64 clients over those of 64 calls in process, the
        median of the rounds' ratios. For each number of clients N (1, 16, 64) and side (`http`, `in_process`):
        `SIDE_rps_at_N`, `SIDE_p50_ms_at_N`, `SIDE_p95_ms_at_N`.

        Of streams (not of "instant", which says nothing before it is done): `stream_throughput_ratio_at_64`, requests
        per second of 64 clients that stream over those of 64 that do not, the median of the rounds' ratios;
        `stream_cpu_ratio_at_64`, the same of the server's processor time a request, which other work on the machine
        does not change as much. For 1 and 64 clients `first_token_ms_at_N`, from the request to the first piece of the
        answer at the client, `own_first_token_ms_at_N`, to the first token that the answering role's model drew for it,
        the tag's included, and `first_token_ratio_at_N` of these, request by request (medians).

        Under an open load of `overload_offered_ratio` times the requests per second that 64 clients reached:
        `overload_unanswered`, requests that got neither an answer nor a 429 with Retry-After; `overload_rss_growth_mb`,
        resident memory of the server after it less before, and `overload_rss_growth_later_mb` of the second half alone;
        `overload_answered`, `overload_refused`, `overload_p95_ms` (of those answered), `overload_goodput_ratio`
        (answered per second over what 64 clients reached).

    Raises:
        UsageError: BENCH_MODEL. BackboneError: BENCH_SERVER, when the server does not start.
    """
    if model not in ("tiny", "instant"):
        raise UsageError(f"{model!r} cannot be served here.", code="BENCH_MODEL", known=["tiny", "instant"])
    rounds, size = (2, 1) if quick else (5, 3)
    from uvicorn import Config

    async def nothing(*_: Any) -> None: ...

    factory = Config(nothing).get_loop_factory()  # what the server runs on
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_measure(model, Path(folder), rounds, size, min(seconds, 6.0) if quick else seconds))


async def _measure(model: str, folder: Path, rounds: int, size: int, seconds: float) -> dict[str, float]:
    http, local, streams = _Side(), _Side(), Streams(folder / "marks")
    with _graph(model, folder / "local.db") as (graph, questions), _server(model, folder) as server:
        bodies = [json.dumps({"messages": [{"role": "user", "content": q}]}).encode() for q in questions]
        client = _Client(server.port)

        async def ask(i: int) -> None:
            status, _ = await client.post(bodies[i % len(bodies)])
            if status != 200:
                raise BackboneError(f"the server answered {status}.", code="BENCH_SERVER")

        async def call(i: int) -> None:
            await graph.arun(questions[i % len(questions)])

        for side in (ask, call):  # warm up
            await _load(side, 16, 48)
        told = [json.dumps({**json.loads(body), "stream": True}).encode() for body in bodies]

        async def stream(i: int) -> First:
            return await client.stream(told[i % len(told)])

        for _ in range(rounds):
            for n in CLIENTS:
                count = max(2 * n, 20) * size
                local.add(n, *await _load(call, n, count))
                cpu = server.cpu_s()
                plain = await _load(ask, n, count)
                http.add(n, *plain)
                if model != "instant" and n in FIRST_TOKENS:
                    again = partial(_load, clients=n, count=count)
                    await streams.add(n, plain[0], server.cpu_s() - cpu, server.cpu_s, again, stream)
        capacity = statistics.median(http.rps[64])
        over = await _overload(server, client, bodies, capacity * OVERLOAD, seconds)
        client.close()
    figures = {
        "overhead_p50_ms_at_1": _median(a - b for a, b in zip(http.p50[1], local.p50[1], strict=True)),
        "throughput_ratio_to_in_process_at_64": _median(
            a / b for a, b in zip(http.rps[64], local.rps[64], strict=True)
        ),
        **http.figures("http"),
        **local.figures("in_process"),
        **streams.figures(),
        **over,
        "overload_offered_ratio": OVERLOAD,
        "overload_goodput_ratio": over["overload_answered"] / over["overload_s"] / capacity,
        "rounds": float(rounds),
    }
    return {name: round(value, 3) for name, value in figures.items()}


def _median(values: Iterator[float] | Sequence[float]) -> float:
    return statistics.median(values)


@dataclass(slots=True)
class _Side:
    """Requests per second and latencies (ms) by number of clients, a value for each round."""

    rps: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CLIENTS})
    p50: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CLIENTS})
    p95: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in CLIENTS})

    def add(self, n: int, seconds: float, took: Sequence[float]) -> None:
        self.rps[n].append(len(took) / seconds)
        self.p50[n].append(1000 * statistics.median(took))
        self.p95[n].append(1000 * _p95(took))

    def figures(self, name: str) -> dict[str, float]:
        out = {}
        for n in CLIENTS:
            out[f"{name}_rps_at_{n}"] = _median(self.rps[n])
            out[f"{name}_p50_ms_at_{n}"] = _median(self.p50[n])
            out[f"{name}_p95_ms_at_{n}"] = _median(self.p95[n])
        return out


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


async def _load(call: Call, clients: int, count: int) -> tuple[float, list[float]]:
    """`count` calls by so many clients, each with one under way: seconds in all, and of each."""
    numbers, took = iter(range(count)), list[float]()

    async def client() -> None:
        for i in numbers:
            began = time.perf_counter()
            await call(i)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - began, took


# --- overload ---------------------------------------------------------------------------------------------------------
async def _overload(
    server: _Server, client: _Client, bodies: Sequence[bytes], rate: float, seconds: float
) -> dict[str, float]:
    """Requests that come whether or not earlier ones were answered."""
    ends, took = Counter[str](), list[float]()

    async def one(body: bytes) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status, headers = await client.post(body)
        except (OSError, EOFError, TimeoutError):
            ends["unanswered"] += 1
            return
        if status == 200:
            took.append(time.perf_counter() - began)
        refused = status == 429 and b"\r\nretry-after: " in headers
        ends["answered" if status == 200 else "refused" if refused else "unanswered"] += 1

    before = server.rss_mb()
    half = before
    tasks: set[asyncio.Task[None]] = set()
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - began) < seconds:
        while sent < now * rate:
            task = asyncio.create_task(one(bodies[sent % len(bodies)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if half == before and now > seconds / 2:
            half = server.rss_mb()
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    lasted, after = time.perf_counter() - began, server.rss_mb()
    return {
        "overload_unanswered": float(ends["unanswered"] + sent - ends.total()),
        "overload_rss_growth_mb": after - before,
        "overload_rss_growth_later_mb": after - half,
        "overload_answered": float(ends["answered"]),
        "overload_refused": float(ends["refused"]),
        "overload_p95_ms": 1000 * _p95(took) if took else 0.0,
        "overload_s": lasted,
    }


class _Client:
    """HTTP/1.1 with connections that are kept, and next to nothing else: a client library would cost more than the
    server that is measured."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the server closes what was idle for long
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and headers. Raises `OSError` or `EOFError` when the connection ends first."""
        reader, writer = await self._connection()
        try:
            writer.write(_REQUEST % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            start = lower.index(b"content-length: ") + 16
            await reader.readexactly(int(lower[start : lower.index(b"\r", start)]))
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return int(head[9:12]), lower

    async def stream(self, body: bytes) -> First:
        """A streamed answer. Raises `BackboneError` BENCH_SERVER where none comes."""
        reader, writer = await self._connection()
        began, first, run_id = time.monotonic(), math.nan, b""
        try:
            writer.write(_REQUEST % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            if b"\r\ntransfer-encoding: chunked" not in head.lower():
                raise BackboneError(f"the server answered {head[9:12].decode()}.", code="BENCH_SERVER")
            while size := int(await reader.readline(), 16):
                data = await reader.readexactly(size + 2)
                run_id = run_id or data.partition(b'"id":"chatcmpl-')[2].partition(b'"')[0]
                if math.isnan(first) and b'"delta":{"content":' in data:
                    first = time.monotonic()
            await reader.readexactly(2)
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        if math.isnan(first):
            raise BackboneError("the server streamed no answer.", code="BENCH_SERVER")
        return First(began, first, run_id.decode())

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


# --- the two sides ----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _graph(model: str, store: Path) -> Iterator[tuple[JadeGraph, list[str]]]:
    """The graph that both sides run, and what it is asked."""
    from jade_graph.sync import run_sync

    backbone: Any
    retriever: Any
    if model == "instant":
        from jade_graph.bench import overhead

        backbone, retriever, questions = overhead._Instant(), overhead._FixedPassages(), [overhead._QUESTION]
    else:
        import torch

        from jade_graph.backbones import load_backbone
        from jade_graph.microworld import Difficulty, make_questions, make_world
        from jade_graph.microworld.search import WordSearch

        torch.set_num_threads(1)
        world = make_world("test", 0, Difficulty(scale=0.1))
        backbone, retriever = load_backbone(model, device="cpu"), WordSearch(world.passages)
        questions = [q.question for q in make_questions(world, 64, seed=0)]
    with RunStore(store) as recorder:
        graph = JadeGraph(backbone, preset="jade", retriever=retriever, recorder=recorder)
        try:
            yield graph, questions
        finally:
            run_sync(graph.aclose())


@dataclass(slots=True)
class _Server:
    process: subprocess.Popen[str]
    port: int

    def rss_mb(self) -> float:
        text = Path(f"/proc/{self.process.pid}/statm").read_text("ascii")
        import resource

        return int(text.split()[1]) * resource.getpagesize() / 2**20

    def cpu_s(self) -> float:
        """Processor time so far."""
        import os

        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _server(model: str, folder: Path) -> Iterator[_Server]:
    command = [sys.executable, "-m", "jade_graph.bench.serve", model, str(folder / "served.db"), str(folder / "marks")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise BackboneError("the server did not start.", code="BENCH_SERVER", hint="jade serve --verbose")
        yield _Server(process, int(line))
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def _serve(model: str, store: str, marks: str) -> None:
    """The server's process: the app of `jade serve` over the benchmark's graph."""
    from jade_graph.serve.app import create_app
    from jade_graph.serve.graphs import Graphs
    from jade_graph.serve.server import listen
    from jade_graph.serve.server import serve as answer
    from jade_graph.serve.service import Service
    from jade_graph.settings.fields import ServeSettings, Settings

    settings = Settings(backbone=f"bench:{model}", serve=ServeSettings(port=0))
    with _graph(model, Path(store)) as (graph, _), listen(settings.serve) as bound:
        if model != "instant":
            mark(graph, Path(marks))
        graphs = Graphs(lambda *_: graph, graph.backbone, [graph.preset])
        service = Service(graphs, settings, store=None)
        port = bound.getsockname()[1]
        answer(create_app(service, local=True), bound, deadline_s=30, started=lambda: print(port, flush=True))


if __name__ == "__main__":
    _serve(*sys.argv[1:])
