"""What the graph and the recording cost beside the model: CPU per step and per recorded action.

Invariant: ours and bare LangGraph run in alternation in one process over the same number of nodes, with a backbone that
costs next to nothing; figures are medians over rounds of process CPU time (all threads), not wall time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Durability
from typing_extensions import TypedDict

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.types import Ask, Completion, Event, Passage, Sampling

_ACTIONS = {
    "PL": "<workflow>QR,R,DS,AG</workflow>",
    "QR": "<query>director of the film Silent Fountain</query>",
    "DS": "<id>Document0,Document2</id>",
    "AG": "<answer>Isaac Decker</answer>",
}
_QUESTION = "Who directed the film Silent Fountain, which a friend of mine saw yesterday?"
_TEXT = "Isaac Decker directed the film Silent Fountain. It came out in 1960 and was produced by Apex Supplies. " * 2


class _Instant:
    """A backbone whose every answer is ready: prompts of realistic length, nothing computed."""

    version, profile, max_context, eos_token_id = "instant", "compact", 4096, 1

    def __init__(self) -> None:
        self._done = {
            role: Completion(text, tuple(range(12)), (-0.5,) * 12, "stop", self.version)
            for role, text in _ACTIONS.items()
        }
        self._prompt = list(range(160))

    def encode(self, messages: Any) -> list[int]:
        del messages
        return self._prompt

    def encode_text(self, text: str) -> list[int]:
        return list(range(len(text) // 4))

    def decode(self, token_ids: Any) -> str:
        return str(token_ids)

    async def generate(self, prompt_token_ids: Any, sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        del prompt_token_ids, sampling
        assert hint is not None
        return self._done[hint.role]

    async def aclose(self) -> None:
        return None


class _FixedPassages:
    corpus_id = "fixed"

    def __init__(self) -> None:
        self._passages = [Passage(f"p{i}", _TEXT, f"Title {i}", 1.0 / (i + 1)) for i in range(5)]

    async def search(self, query: str, k: int) -> list[Passage]:
        del query
        return self._passages[:k]


def run(*, quick: bool = False) -> dict[str, float]:
    """CPU milliseconds, and the counts behind them.

    `record_ms_per_action`, `graph_ms_per_step` (runs that nobody watches), `watched_ms_per_step` (the same through
    LangGraph), `sync_ms_per_step`, `async_ms_per_step`, `exit_ms_per_step` (the same with a checkpointer in memory, by
    durability), `bare_langgraph_ms_per_step` (nodes that do nothing), `timed_langgraph_ms_per_step` (the same with
    LangGraph's node timeouts).
    """
    return asyncio.run(_measure(rounds=3 if quick else 9, runs=40 if quick else 150))


async def _measure(rounds: int, runs: int) -> dict[str, float]:
    plain = JadeGraph(_Instant(), retriever=_FixedPassages())
    steps, actions = await _count(plain)
    bare, timed = _bare(steps), _bare(steps, timeout=60.0)
    kept = {
        mode: JadeGraph(_Instant(), retriever=_FixedPassages(), checkpointer=InMemorySaver(), durability=mode)
        for mode in get_args(Durability)
    }
    with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder) / "runs.db") as store:
        recorded = JadeGraph(_Instant(), retriever=_FixedPassages(), recorder=store)

        async def ours(graph: JadeGraph, **options: Any) -> None:
            async for _ in graph.arun_many([_QUESTION] * runs, concurrency=16, **options):
                pass

        async def theirs(graph: Any) -> None:
            for _ in range(runs):
                await graph.ainvoke({"x": 0})

        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "plain": lambda: ours(plain),
            "recorded": lambda: ours(recorded),
            "watched": lambda: ours(plain, config={"max_concurrency": 64}),  # the way through LangGraph
            **{mode: partial(ours, graph) for mode, graph in kept.items()},
            "bare": lambda: theirs(bare),
            "timed": lambda: theirs(timed),
        }
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():  # warm up
            await way()
        for _ in range(rounds):
            for name, way in ways.items():
                began = time.process_time()
                await way()
                cpu[name].append((time.process_time() - began) * 1000 / runs)
    middle = {name: statistics.median(values) for name, values in cpu.items()}
    recording = [r - p for r, p in zip(cpu["recorded"], cpu["plain"], strict=True)]
    return {
        "record_ms_per_action": round(statistics.median(recording) / actions, 4),
        "graph_ms_per_step": round(middle["plain"] / steps, 4),
        "watched_ms_per_step": round(middle["watched"] / steps, 4),
        **{f"{mode}_ms_per_step": round(middle[mode] / steps, 4) for mode in kept},
        "bare_langgraph_ms_per_step": round(middle["bare"] / steps, 4),
        "timed_langgraph_ms_per_step": round(middle["timed"] / steps, 4),
        "graph_over_bare": round(middle["plain"] / middle["bare"], 3),
        "watched_over_bare": round(middle["watched"] / middle["bare"], 3),
        "timed_over_bare": round(middle["timed"] / middle["bare"], 3),
        "steps_per_run": steps,
        "actions_per_run": actions,
        "rounds": rounds,
    }


async def _count(graph: JadeGraph) -> tuple[int, int]:
    """Graph steps and recorded actions of one run."""
    steps = actions = 0
    async for _ in graph.graph.astream({"question": _QUESTION}, stream_mode="updates"):
        steps += 1

    def watch(event: Event) -> None:
        nonlocal actions
        actions += event.kind == "transition"

    await graph.arun(_QUESTION, on_event=watch)
    return steps, actions


class _Bare(TypedDict):
    x: int


def _bare(nodes: int, timeout: float | None = None) -> Any:
    """LangGraph alone: a chain of nodes that do nothing, within so many seconds where told."""
    graph = StateGraph(_Bare)

    async def nothing(state: _Bare) -> dict[str, Any]:
        del state
        return {}

    names = [f"n{i}" for i in range(nodes)]
    for name in names:
        graph.add_node(name, nothing, timeout=timeout)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile()
