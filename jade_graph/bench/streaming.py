"""What streaming costs, and how soon the first piece of an answer is there.

Invariant: a round streams the requests that came before it without streams. A first token at the client is compared
with the moment at which the answering role's model drew its own first one for the same request, on the clock that all
processes of a machine share.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.langchain.runnable import JadeGraph

FIRST_TOKENS = (1, 64)
"""Numbers of clients whose first tokens are figures."""


@dataclass(frozen=True, slots=True)
class First:
    """A streamed request: when it was sent, when the first piece of its answer was there, and its run."""

    sent: float
    came: float
    run_id: str


Load = Callable[[Callable[[int], Awaitable[None]]], Awaitable[tuple[float, list[float]]]]
"""Makes a round's calls; seconds in all, and of each."""


def mark(graph: JadeGraph, file: Path) -> None:
    """Let the graph write down when its model drew the first token of each run's answer, the tag's included."""
    backbone: Any = graph.backbone
    served: Any = graph
    arun, generate, current = served.arun, backbone.generate, ContextVar[str]("run", default="")
    marked: set[str] = set()

    async def run(question: Any, **options: Any) -> Any:
        current.set(str(options.get("run_id") or ""))
        return await arun(question, **options)

    async def drawn(*args: Any, watch: Callable[[str], None] | None = None, **more: Any) -> Any:
        if watch is None:
            return await generate(*args, **more)
        run_id, inner = current.get(), watch

        def hear(text: str) -> None:
            if run_id not in marked:
                marked.add(run_id)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(f"{run_id} {time.monotonic()}\n")
            inner(text)

        return await generate(*args, watch=hear, **more)

    served.arun, backbone.generate = run, drawn


def _rounds() -> dict[int, list[float]]:
    return {n: [] for n in FIRST_TOKENS}


@dataclass(slots=True)
class Streams:
    """Figures by number of clients, a value for each round.

    Args:
        marks: the file that `mark` writes.
    """

    marks: Path
    throughput: dict[int, list[float]] = field(default_factory=_rounds)
    cpu: dict[int, list[float]] = field(default_factory=_rounds)
    firsts: dict[int, list[First]] = field(default_factory=lambda: {n: [] for n in FIRST_TOKENS})

    async def add(
        self,
        n: int,
        plain_s: float,
        plain_cpu_s: float,
        cpu_s: Callable[[], float],
        load: Load,
        ask: Callable[[int], Awaitable[First]],
    ) -> None:
        """A round of `n` clients, behind one without streams that took `plain_s` and `plain_cpu_s` of the server."""

        async def call(i: int) -> None:
            self.firsts[n].append(await ask(i))

        before = cpu_s()
        seconds, _ = await load(call)
        self.cpu[n].append((cpu_s() - before) / plain_cpu_s if plain_cpu_s else math.nan)
        self.throughput[n].append(plain_s / seconds)

    def figures(self) -> dict[str, float]:
        """None where no round was added."""
        if not self.throughput[64]:
            return {}
        lines = (line.split() for line in self.marks.read_text("utf-8").splitlines())
        drawn = {run_id: float(at) for run_id, at in lines}
        out = {
            "stream_throughput_ratio_at_64": statistics.median(self.throughput[64]),
            "stream_cpu_ratio_at_64": statistics.median(self.cpu[64]),
        }
        for n in FIRST_TOKENS:
            pairs = [(f.came - f.sent, drawn[f.run_id] - f.sent) for f in self.firsts[n] if f.run_id in drawn]
            out[f"first_token_ms_at_{n}"] = 1000 * statistics.median(a for a, _ in pairs)
            out[f"own_first_token_ms_at_{n}"] = 1000 * statistics.median(b for _, b in pairs)
            out[f"first_token_ratio_at_{n}"] = statistics.median(a / b for a, b in pairs)
        return out
