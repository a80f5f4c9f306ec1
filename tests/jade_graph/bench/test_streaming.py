"""First tokens and costs of streams: hand-computed, and a graph that writes down when its model began to speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jade_graph.bench.streaming import First, Streams, mark
from jade_graph.langchain.runnable import JadeGraph


async def test_ratios_are_taken_request_by_request_and_round_by_round(tmp_path: Path) -> None:
    (tmp_path / "marks").write_text("a 11.0\nb 24.0\nc 30.5\n")
    streams, cpu = Streams(tmp_path / "marks"), iter([0.0, 2.0, 5.0, 6.0])
    sent = {"a": First(10.0, 11.5, "a"), "b": First(20.0, 24.0, "b"), "c": First(30.0, 31.0, "c")}

    async def load(call: Any) -> tuple[float, list[float]]:
        for i in range(3):
            await call(i)
        return 4.0, []

    async def ask(i: int) -> First:
        return [*sent.values(), First(0.0, 1.0, "unknown")][i]

    for n in (1, 64):
        await streams.add(n, 3.0, 1.6 if n == 1 else 0.8, lambda: next(cpu), load, ask)
    found = streams.figures()
    assert found["stream_throughput_ratio_at_64"] == 0.75
    assert found["stream_cpu_ratio_at_64"] == 1.25
    for n in (1, 64):
        assert found[f"first_token_ratio_at_{n}"] == 1.5  # of 1.5, 1.0 and 2.0
        assert found[f"first_token_ms_at_{n}"] == 1500.0
        assert found[f"own_first_token_ms_at_{n}"] == 1000.0


def test_no_round_is_no_figure(tmp_path: Path) -> None:
    assert Streams(tmp_path / "marks").figures() == {}


async def test_a_graph_writes_down_when_its_model_began_to_speak_once_a_run(
    scripted: Any, passages: Any, tmp_path: Path
) -> None:
    graph, file = JadeGraph(scripted(), retriever=passages), tmp_path / "marks"
    mark(graph, file)
    heard: list[Any] = []
    for run_id in ("one", "two"):
        run = await graph.arun("who?", run_id=run_id, on_event=heard.append, tokens=True)
        assert run.answer == "Ann Lee"
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["one", "two"]
    assert "".join(e.text for e in heard if e.kind == "token") == "Ann LeeAnn Lee"
    await graph.arun("who?", run_id="three")
    assert len(file.read_text().splitlines()) == 2
