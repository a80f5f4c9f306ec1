"""Learning runs of a comparison side by side, a process each.

Invariant: a process learns one arm with one seed just as the comparison would, in the comparison's own folder; all that
it hands over are the files that the comparison then reads back. So a comparison that was cut off goes on with any
number of processes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jade_graph.rollouts.processes import Processes, Tell
from jade_graph.settings.config import Config
from jade_graph.settings.manifest import cores, memory_gib
from jade_training.compare.arms import Arm, suites
from jade_training.compare.run import CompareSettings, Comparison, Price, result_name
from jade_training.improve.improver import STATE, Progress
from jade_training.improve.inputs import data_of
from jade_training.learner.logits import FEW_THREADS

PROGRESS_S = 1.0
JOB_GIB = 4.0
"""What a learning run of a small model may need."""


@dataclass(frozen=True, slots=True)
class Job:
    """One learning run: an arm's name, the seed, and the price where that is swept."""

    arm: str
    seed: int
    price: Price | None = None

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return result_name(self.price.named(self.arm) if self.price else self.arm, self.seed)


@dataclass(frozen=True, slots=True)
class Shared:
    """What every process needs: the comparison's folder, start, data (train, dev, test) and settings."""

    config: Config
    out: Path
    start: Path
    data: tuple[str, str, str]
    settings: CompareSettings
    suite: str


def jobs_of(arms: Sequence[Arm], settings: CompareSettings) -> list[Job]:
    """All learning runs of a comparison, in the order in which it would make them."""
    runs = [
        Job(arm.name, seed)
        for seed in settings.seeds
        for arm in arms
        if arm.learns and not (arm.name in settings.once and seed != settings.seeds[0])
    ]
    swept = settings.seeds[: settings.sweep_seeds]
    return runs + [Job("joint", seed, price) for price in settings.prices for seed in swept]


def usual(start: Path) -> int:
    """How many at once: with a small model as cores and memory allow; one where a model keeps cores or a GPU busy."""
    import torch

    small = sum(path.stat().st_size for path in start.glob("*.safetensors")) < 4 * FEW_THREADS  # float32
    if not small or torch.cuda.is_available():
        return 1
    return max(1, min(cores(), int((memory_gib() or JOB_GIB) / JOB_GIB)))


def side_by_side(shared: Shared, jobs: Sequence[Job], at_once: int, tell: Callable[[int, int, str], None]) -> None:
    """Learn what is not learned yet. Raises what the first to fail raised.

    Args:
        tell: called with iterations done, of how many, and who is learning.
    """
    waiting = [job for job in jobs if not (shared.out / "results" / f"{job.name}.json").exists()]
    if not waiting:
        return
    work = [partial(learn, shared, job) for job in waiting]
    with Processes(work, at_once) as processes:
        while processes.running:
            processes.told(PROGRESS_S)
            tell(*_progress(shared, jobs, [waiting[i].name for i in processes.running]))


def learn(shared: Shared, job: Job, tell: Tell) -> None:
    """One learning run, in the process that calls this. Its files say how far it is."""
    del tell
    train, dev, test = (data_of(shared.config, spec) for spec in shared.data)
    work = Comparison(shared.out, shared.start, train, dev, test, shared.settings, _silent)
    arm = suites()[shared.suite].arms[job.arm]
    asyncio.run(work.learned(arm, job.seed, job.price))


def _silent(what: str, progress: Progress | None) -> None:
    """The comparison itself tells how far its processes are."""


def _progress(shared: Shared, jobs: Sequence[Job], now: Sequence[str]) -> tuple[int, int, str]:
    each = shared.settings.improve.iterations
    done = sum(_iterations(shared.out, job.name, each) for job in jobs)
    return done, each * len(jobs), ", ".join(now)


def _iterations(out: Path, name: str, most: int) -> int:
    if (out / "results" / f"{name}.json").exists():
        return most
    try:
        state: dict[str, Any] = json.loads((out / "arms" / name / STATE).read_text(encoding="utf-8"))
    except OSError:
        return 0
    return int(state["done"])
