"""What a new version costs: register, gate, promote, reload, roll back, and 1,000 questions in flight through 20 swaps.

Invariant: the load with swaps and the load without run in alternation on one graph in one process, with the same
questions and callers; promotions are made by another process, as people make them. Versions are told apart by their
weights, and a run counts as mixed by what its recorded actions say.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.versions import VersionedBackbone, connect

if TYPE_CHECKING:
    from jade_graph.registry import Registry
    from jade_graph.types import Question, Run

POLL_S = 0.25
_MODEL = "jade-bench"
_PATIENCE_S = 180.0


def run(
    *, questions: int = 1000, swaps: int = 20, concurrency: int = 64, gate_questions: int = 400, quick: bool = False
) -> dict[str, float]:
    """Measure on jade-tiny and a copy of it with one layer changed a little, in a registry of its own (SQLite).

    Args:
        questions: in each of the two loads; more are asked where the swaps take longer.
        swaps: promotions and rollbacks during the load, in turn.
        concurrency: callers; each asks its next question when the last one is answered.
        gate_questions: that the gate compares the two versions on.
        quick: 200 questions, 4 swaps, 60 questions for the gate.

    Returns:
        Seconds: `create_s` (a new registry and the first version), `register_s`, `gate_s` (the comparison that a
        promotion rests on), `promote_s` (the entry and the alias), `reload_s` (from there until new runs lease the
        version; half a poll of `poll_s` of it is waiting), `rollback_s` (from the command until they lease the former
        version). `swaps`, `runs` and `swap_failures` (runs that failed during the load with swaps), `failures` (without
        swaps), `mixed_version_runs`, `runs_across_swaps` (in flight when another version became active),
        `versions_in_memory` (the most). Latencies of a question in ms: `p50_ms`, `p95_ms`, `swap_p50_ms`,
        `swap_p95_ms`, `added_p95_ms`, and `swap_p95_ratio` and `swap_p50_ratio`, with swaps over without; `runs_per_s`
        without swaps. Of the time of the load with swaps: `loading_share`, in which a version was fetched, loaded and
        asked, and `two_versions_share`, in which runs of two versions shared the processor. CPU time of this process,
        which other work on the machine hardly changes: `cpu_ms_per_run`, `swap_cpu_ms_per_run`, and `reload_cpu_ms`,
        what it takes to fetch, load and ask a version. What a run costs more with swaps, and the reloads do not
        explain, is the price of two smaller batches instead of one.
    """
    if quick:
        questions, swaps, gate_questions = min(questions, 200), min(swaps, 4), min(gate_questions, 60)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        return _measure(Path(folder), questions, swaps, concurrency, gate_questions)


def _measure(folder: Path, questions: int, swaps: int, concurrency: int, gate_questions: int) -> dict[str, float]:
    from jade_graph.registry import Registry

    registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", model=_MODEL, data_dir=folder)
    figures: dict[str, float] = {"poll_s": POLL_S, "concurrency": float(concurrency)}
    figures["create_s"], _ = _timed(lambda: registry.register("tiny"))
    changed = _changed(folder / "changed")
    figures["register_s"], _ = _timed(lambda: registry.register(changed))
    registry.promote(1, kind="force", reason="the benchmark's first version")
    figures["gate_s"] = _gate(registry, gate_questions)
    world = make_world("test", 0)
    backbone = connect(f"/{_MODEL}@champion", registry=registry, poll_s=POLL_S)
    assert isinstance(backbone, VersionedBackbone)
    graph = JadeGraph(backbone, retriever=WordSearch(world.passages))
    try:
        figures |= _reloads(registry, backbone, rounds=3 if swaps < 20 else 7)
        with _promoter(registry) as other:
            loads = _Loads(graph, backbone, other, make_questions(world, questions, seed=0), concurrency)
            figures |= asyncio.run(loads.measure(questions, swaps, blocks=2 if swaps < 20 else 4))
    finally:
        asyncio.run(graph.aclose())
    return figures


def _changed(folder: Path) -> Path:
    """A copy of the bundled model with the first norm's weights 5 % larger: another version that works as well."""
    from safetensors.torch import load_file, save_file

    from jade_graph.backbones import TINY

    shutil.copytree(TINY, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "norm" in name)
    weights[name] = weights[name] * 1.05
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _reloads(registry: Registry, backbone: VersionedBackbone, rounds: int) -> dict[str, float]:
    """Promotions and rollbacks without load, one after the other."""
    promote, reload, rollback, cpu = [], [], [], []
    for _ in range(rounds):
        took, _ = _timed(lambda: registry.promote(2, kind="force", reason="benchmark"))
        promote.append(took)
        used = time.process_time()
        reload.append(_timed(lambda: _wait_for(backbone, 2))[0])
        cpu.append((time.process_time() - used) * 1000)
        began = time.perf_counter()
        registry.rollback()
        _wait_for(backbone, 1)
        rollback.append(time.perf_counter() - began)
    middle = statistics.median
    return {
        "promote_s": middle(promote), "reload_s": middle(reload), "rollback_s": middle(rollback),
        "reload_cpu_ms": middle(cpu),
    }  # fmt: skip


def _wait_for(backbone: VersionedBackbone, number: int) -> None:
    end = time.monotonic() + _PATIENCE_S
    while backbone.status().active != number:
        if time.monotonic() > end:
            raise TimeoutError(f"version {number} did not become active in {_PATIENCE_S:g} s: {backbone.status()}")
        time.sleep(0.002)


class _Loads:
    """The same questions by the same callers, with and without swaps."""

    def __init__(
        self,
        graph: JadeGraph,
        backbone: VersionedBackbone,
        promoter: Any,
        questions: Sequence[Question],
        concurrency: int,
    ) -> None:
        self._graph, self._backbone, self._promoter = graph, backbone, promoter
        self._questions, self._concurrency = questions, concurrency
        self._across = self._swapped = self._most = 0
        self._looks = self._loading = self._shared = 0

    async def measure(self, questions: int, swaps: int, blocks: int) -> dict[str, float]:
        plain: list[tuple[Run, float]] = []
        swapped: list[tuple[Run, float]] = []
        seconds = plain_cpu = swapped_cpu = 0.0
        await self._load(self._concurrency, 0)  # warm up
        for block in range(blocks):
            share = questions // blocks + (block < questions % blocks)
            began, used = time.perf_counter(), time.process_time()
            plain += await self._load(share, 0)
            seconds += time.perf_counter() - began
            plain_cpu += time.process_time() - used
            looking, used = asyncio.create_task(self._look()), time.process_time()
            swapped += await self._load(share, swaps // blocks + (block < swaps % blocks))
            looking.cancel()
            swapped_cpu += time.process_time() - used
        without, with_ = (np.array([ms for _, ms in runs]) for runs in (plain, swapped))
        figures = {
            "swaps": self._swapped,
            "runs": len(swapped),
            "swap_failures": sum(run.status != "answered" for run, _ in swapped),
            "failures": sum(run.status != "answered" for run, _ in plain),
            "mixed_version_runs": sum(mixed(run) for run, _ in swapped),
            "runs_across_swaps": self._across,
            "versions_in_memory": self._most,
            "p50_ms": np.percentile(without, 50),
            "p95_ms": np.percentile(without, 95),
            "swap_p50_ms": np.percentile(with_, 50),
            "swap_p95_ms": np.percentile(with_, 95),
            "added_p95_ms": np.percentile(with_, 95) - np.percentile(without, 95),
            "swap_p95_ratio": np.percentile(with_, 95) / np.percentile(without, 95),
            "swap_p50_ratio": np.percentile(with_, 50) / np.percentile(without, 50),
            "cpu_ms_per_run": 1000 * plain_cpu / len(plain),
            "swap_cpu_ms_per_run": 1000 * swapped_cpu / len(swapped),
            "loading_share": self._loading / max(1, self._looks),
            "two_versions_share": self._shared / max(1, self._looks),
            "runs_per_s": len(plain) / seconds,
        }
        return {name: float(value) for name, value in figures.items()}

    async def _load(self, questions: int, swaps: int) -> list[tuple[Run, float]]:
        """At least so many questions, and as many more as the swaps need to happen among them."""
        found: list[tuple[Run, float]] = []
        asked = 0
        waiting = cycle(self._questions)
        swapping = asyncio.ensure_future(self._swap(swaps, questions, found))

        async def caller() -> None:
            nonlocal asked
            while asked < questions or not swapping.done():
                asked += 1
                began = time.perf_counter()
                run = await self._graph.arun(next(waiting))
                found.append((run, (time.perf_counter() - began) * 1000))

        await asyncio.gather(*(caller() for _ in range(self._concurrency)))
        await swapping
        return found

    async def _look(self) -> None:
        """See at even times what the versions are doing."""
        while True:
            status = self._backbone.status()
            self._looks += 1
            self._loading += status.loading is not None
            self._shared += sum(runs > 0 for runs in status.held.values()) > 1
            await asyncio.sleep(0.02)

    async def _swap(self, swaps: int, questions: int, found: Sequence[Any]) -> None:
        """Promote and roll back in turn, spread over the questions; each swap arrives before the next is made."""
        for index in range(swaps):
            while len(found) < index * questions / swaps:  # noqa: ASYNC110 - the load counts, nobody waits for it
                await asyncio.sleep(0.01)
            before = self._backbone.status()
            await asyncio.to_thread(self._promoter, before.active == 1)
            end = time.monotonic() + _PATIENCE_S
            while (status := self._backbone.status()).active == before.active:
                if time.monotonic() > end:
                    raise TimeoutError(f"no swap in {_PATIENCE_S:g} s: {status}")
                await asyncio.sleep(0.002)
            self._swapped += 1
            self._across += status.held.get(before.active, 0)
            self._most = max(self._most, len(status.held))


def mixed(run: Run) -> bool:
    """Whether more than one version of the weights acted in the run, or another one than the run names."""
    return not {t.backbone_version for t in run.transitions if t.backbone_version} <= {run.backbone_version}


@contextlib.contextmanager
def _promoter(registry: Registry) -> Iterator[Any]:
    """A function that promotes version 2 (True) or rolls back (False), in another process; returns when it is done."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_promote, args=(registry.uri, str(registry.place.data), theirs), daemon=True)
    process.start()
    try:
        ours.recv()  # it is ready

        def tell(forward: bool) -> None:
            ours.send(forward)
            if (failed := ours.recv()) is not None:
                raise RuntimeError(failed)

        yield tell
    finally:
        with contextlib.suppress(OSError):
            ours.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()


def _promote(uri: str, data: str, pipe: Any) -> None:
    """In the other process."""
    from jade_graph.registry import Registry

    registry = Registry(uri, model=_MODEL, data_dir=data)
    with _quiet():
        registry.current()
        pipe.send(None)
        while (forward := pipe.recv()) is not None:
            try:
                if forward:
                    registry.promote(2, kind="force", reason="benchmark")
                else:
                    registry.rollback()
            except Exception as error:  # told to the process that asked
                pipe.send(f"{type(error).__name__}: {error}")
            else:
                pipe.send(None)


def _gate(registry: Registry, questions: int) -> float:
    """Both versions answer the gate's questions, and the gate judges; nothing is promoted by it."""
    from jade_graph.data import load_dataset
    from jade_graph.gate import Policy, measure, promote
    from jade_graph.settings.config import load_config

    data = load_dataset(f"microworld:test?n={questions}")
    policy = Policy()

    def judge() -> None:
        versions = [registry.get(1), registry.get(2)]
        trial = measure(
            registry,
            versions,
            load_config(env={}),
            policy,
            data=data,
            retriever=WordSearch(data.passages),
            record=False,
        )
        promote(registry, 2, policy=policy, trial=trial, dry_run=True)

    return _timed(judge)[0]


def _timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of MLflow's database: figures are what is asked for."""
    import logging

    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow", "jade_graph.versions")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
