"""What streaming costs, and how soon the first piece of an answer is there.

Invariant: a round streams the same requests that came before it without streams, and asks the same in process; what is
compared was measured side by side.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jade_graph.langchain.runnable import JadeGraph

FIRST_TOKENS = (1, 64)
"""Numbers of clients whose first tokens are figures."""

Timed = Callable[[int], Awaitable[float]]
"""Asks question number i; seconds to its first token."""
Load = Callable[[Callable[[int], Awaitable[None]]], Awaitable[tuple[float, list[float]]]]
"""Makes a round's calls; seconds in all, and of each."""


def first_tokens(graph: JadeGraph) -> Callable[[str], Awaitable[float]]:
    """What asks a question in process, with the seconds until the answering role's model has drawn its first token,
    its tag's included: the graph's backbone is made to say when. Not a number where it said nothing.
    """
    backbone: Any = graph.backbone
    generate, heard = backbone.generate, ContextVar[list[float]]("heard")

    async def timed(*args: Any, watch: Callable[[str], None] | None = None, **more: Any) -> Any:
        if watch is None:
            return await generate(*args, **more)
        times, inner = heard.get(), watch

        def hear(text: str) -> None:
            times.append(time.perf_counter())
            inner(text)

        return await generate(*args, watch=hear, **more)

    backbone.generate = timed

    async def ask(question: str) -> float:
        times: list[float] = []
        heard.set(times)
        began = time.perf_counter()
        await graph.arun(question, on_event=_ignore, tokens=True)
        return times[0] - began if times else math.nan

    return ask


def _ignore(event: object) -> None:
    """Somebody who listens, and does nothing with it."""


def _rounds() -> dict[int, list[float]]:
    return {n: [] for n in FIRST_TOKENS}


@dataclass(slots=True)
class Streams:
    """Figures by number of clients, a value for each round."""

    first_ms: dict[int, list[float]] = field(default_factory=_rounds)
    own_ms: dict[int, list[float]] = field(default_factory=_rounds)
    throughput: dict[int, list[float]] = field(default_factory=_rounds)
    cpu: dict[int, list[float]] = field(default_factory=_rounds)

    async def add(
        self, n: int, plain_s: float, plain_cpu_s: float, cpu_s: Callable[[], float], load: Load, ask: Timed, own: Timed
    ) -> None:
        """A round of `n` clients, behind one without streams that took `plain_s` and `plain_cpu_s` of the server."""
        firsts, owns = list[float](), list[float]()
        before = cpu_s()
        seconds, _ = await load(_into(firsts, ask))
        self.cpu[n].append((cpu_s() - before) / plain_cpu_s if plain_cpu_s else math.nan)
        self.throughput[n].append(plain_s / seconds)
        await load(_into(owns, own))
        self.first_ms[n].append(1000 * statistics.median(firsts))
        self.own_ms[n].append(1000 * statistics.median(t for t in owns if not math.isnan(t)))

    def figures(self) -> dict[str, float]:
        """None where no round was added."""
        if not self.throughput[64]:
            return {}
        out = {
            "stream_throughput_ratio_at_64": statistics.median(self.throughput[64]),
            "stream_cpu_ratio_at_64": statistics.median(self.cpu[64]),
        }
        for n in FIRST_TOKENS:
            out[f"first_token_ms_at_{n}"] = statistics.median(self.first_ms[n])
            out[f"own_first_token_ms_at_{n}"] = statistics.median(self.own_ms[n])
            pairs = zip(self.first_ms[n], self.own_ms[n], strict=True)
            out[f"first_token_ratio_at_{n}"] = statistics.median(a / b for a, b in pairs)
        return out


def _into(kept: list[float], ask: Timed) -> Callable[[int], Awaitable[None]]:
    async def call(i: int) -> None:
        kept.append(await ask(i))

    return call
