"""The end of `jade demo`: what it learned becomes version 2, and a running graph switches to it, and back.

Invariant: the gate judges the demo's own answers to its held-out questions, both versions to the same ones; when it
refuses, nothing is promoted and the demo says why. Every run of the switching graph is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.sync import run_sync
from jade_graph.versions.backbone import VersionedBackbone, connect

if TYPE_CHECKING:
    from jade_graph.gate import Policy, Trial
    from jade_graph.registry import ModelVersion, Registry
    from jade_graph.scoring.evaluation import Row
    from jade_graph.types import Question, Retriever, Run

MODEL = "jade-demo"
POLICY: Mapping[str, Mapping[str, Any]] = {
    # The demo has its answers already; a time that was taken minutes ago beside other work says nothing of latency.
    "latency": {"ratio": 0.0},
}
_POLL_S, _PATIENCE_S, _CALLERS = 0.2, 120.0, 8


def ship(
    data: Path,
    model: Path,
    before: Sequence[Row],
    after: Sequence[Row],
    *,
    dataset: str,
    questions: Sequence[Question],
    retriever: Retriever,
    manifest: Mapping[str, Any],
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Register the bundled model and what was learned, judge, promote, switch a running graph, roll back.

    Args:
        data: the project's data folder: the registry is made there (mlflow.db), its model is named jade-demo.
        model: folder of the learned weights.
        before, after: the rows of both on the same questions, named `dataset`.
        questions: what the running graph is asked meanwhile.
        manifest: what the rows were made with.
        tell: called with a line about what happens.

    Returns:
        "registered" (versions), "verdict", "promoted"; and where the gate passed "switched" and "rolled_back" with
        seconds, "runs" by version, "failed" and "mixed" runs of the graph, "seconds" in all.
    """
    from jade_graph.gate import Policy, promote
    from jade_graph.gate.trial import Trial
    from jade_graph.registry import Registry

    began = time.monotonic()
    registry = Registry(f"sqlite:///{(data / 'mlflow.db').absolute()}", model=MODEL, data_dir=data)
    tell("registering jade-tiny and what it became")
    first = registry.register("tiny", challenger=False)
    second = registry.register(model)
    told: dict[str, Any] = {
        "registry": registry.place.shown,
        "registered": {str(v.number): v.content for v in (first, second)},
    }
    policy = Policy.of(POLICY, "the demo's policy")
    manifests = {
        version.number: {**manifest, "dataset": dataset, "backbone": version.uri, "backbone_version": version.content}
        for version in (first, second)
    }
    trial = Trial(dataset, {first.number: before, second.number: after}, manifests, same_machine=False)
    _begin_with(registry, first, policy, trial)
    outcome = promote(registry, second.number, policy=policy, trial=trial, dry_run=True)
    assert outcome.verdict is not None
    told["verdict"] = outcome.verdict.as_dict()
    told["promoted"] = outcome.verdict.passed
    tell(f"gate on {len(after)} held-out questions: {outcome.verdict.summary}")
    if outcome.verdict.passed:

        def move(forward: bool) -> None:
            if forward:
                promote(registry, second.number, policy=policy, trial=trial)
            else:
                registry.rollback(reason="the end of the demo")

        told |= _switch(registry, retriever, questions, move, tell)
    return {**told, "seconds": round(time.monotonic() - began, 1)}


def _begin_with(registry: Registry, version: ModelVersion, policy: Policy, trial: Trial) -> None:
    """The demo begins with jade-tiny as champion, whatever an earlier one left."""
    from jade_graph.gate import promote

    champion = registry.current()
    if champion is None:
        promote(registry, version.number, policy=policy, trial=trial)
    if registry.current() != version.number:
        registry.promote(version.number, kind="force", reason="the demo begins with jade-tiny")


def _switch(
    registry: Registry,
    retriever: Retriever,
    questions: Sequence[Question],
    move: Callable[[bool], None],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """A graph that answers all the while is switched over, and back."""
    backbone = connect(f"/{MODEL}@champion", registry=registry, poll_s=_POLL_S)
    assert isinstance(backbone, VersionedBackbone)
    graph = JadeGraph(backbone, retriever=retriever)
    tell(f"a graph runs on models:/{MODEL}@champion: {backbone.version}")

    async def live() -> dict[str, Any]:
        runs: list[Run] = []
        stop = False
        waiting = cycle(questions)

        async def caller() -> None:
            while not stop:
                runs.append(await graph.arun(next(waiting)))

        callers = [asyncio.ensure_future(caller()) for _ in range(_CALLERS)]
        out: dict[str, Any] = {}
        try:
            for name, forward in (("switched", True), ("rolled_back", False)):
                await _answered(runs, len(runs) + _CALLERS)
                before = backbone.status().active
                await asyncio.to_thread(move, forward)
                moved = time.monotonic()
                await _until(partial(_other, backbone, before))
                out[name] = {"seconds": round(time.monotonic() - moved, 2), "version": backbone.version}
                tell(f"{'promoted' if forward else 'rolled back'}: new runs on {backbone.version}")
            await _answered(runs, len(runs) + 2 * _CALLERS)
        finally:
            stop = True
            await asyncio.gather(*callers)
        out["runs"] = dict(Counter(run.backbone_version for run in runs))
        out["failed"] = sum(run.status != "answered" for run in runs)
        out["mixed"] = sum(
            not {t.backbone_version for t in run.transitions if t.backbone_version} <= {run.backbone_version}
            for run in runs
        )
        return out

    try:
        return run_sync(live())
    finally:
        run_sync(graph.aclose())


def _other(backbone: VersionedBackbone, number: int) -> bool:
    return backbone.status().active != number


async def _answered(runs: Sequence[Any], count: int) -> None:
    await _until(lambda: len(runs) >= count)


async def _until(true: Callable[[], bool]) -> None:
    """Raises `TimeoutError`."""
    async with asyncio.timeout(_PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)
