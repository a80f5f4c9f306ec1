"""One request, one run: admitted, leased a graph, bounded by one deadline, cancelled when nobody waits for it.

Invariant: a run that was admitted ends, is counted once, and is recorded by the graph; waiting for a place counts
against the run's own deadline. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import UsageError
from jade_graph.serve.graphs import Graphs
from jade_graph.serve.metrics import Metrics
from jade_graph.serve.places import Places
from jade_graph.serve.problems import RequestError, RunFailed
from jade_graph.serve.requests import LimitsBody
from jade_graph.settings.fields import Settings
from jade_graph.settings.manifest import version
from jade_graph.types import Event, Run

if TYPE_CHECKING:
    from jade_graph.runs.store import RunStore
    from jade_graph.telemetry.spans import Tracing

logger = logging.getLogger("jade_graph.serve")


@dataclass(frozen=True, slots=True)
class Job:
    """A run as it was asked for."""

    question: str
    model: str = ""
    seed: int | None = None
    plan: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    limits: LimitsBody | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    asked: float = field(default_factory=time.monotonic)

    @property
    def client(self) -> str:
        """Whose run it is."""
        return str((self.metadata.get("served") or {}).get("client") or "")

    def require_answer(self, run: Run) -> Run:
        """The run, if it has an answer. Raises `RunFailed`."""
        if run.status != "answered":
            own = self.limits is not None and self.limits.deadline_s is not None
            raise RunFailed(run, own_deadline=own)
        return run


class Service:
    """The graphs with what a server keeps about them.

    Args:
        store: where the graphs record; None: nowhere.
        tracing: makes OpenTelemetry spans of runs; None: nobody listens.
    """

    def __init__(
        self, graphs: Graphs, settings: Settings, *, store: RunStore | None = None, tracing: Tracing | None = None
    ) -> None:
        self.graphs = graphs
        self.settings = settings
        self.store = store
        self.tracing = tracing
        self.places = Places(settings.serve.concurrency, settings.serve.queue)
        self.metrics = Metrics(self.places)
        self.stopping = False
        self.started_at = time.time()
        self._tasks: dict[str, asyncio.Task[Run]] = {}  # those that run on without a client
        self._owners: dict[str, str] = {}  # of these

    async def answer(
        self,
        job: Job,
        *,
        on_event: Callable[[Event], None] | None = None,
        tokens: bool = False,
        accepted: Callable[[], None] | None = None,
        admitted: Callable[[], None] | None = None,
    ) -> Run:
        """Make the run.

        Args:
            on_event, tokens: see `Engine.arun`.
            accepted: called when nothing is wrong with the job and it has a place or waits for one.
            admitted: called when the run begins.

        Raises:
            RequestError: UNKNOWN_MODEL, LIMIT_RAISED, SERVER_BUSY, SERVER_STOPPING. UsageError: an illegal plan.
        """
        if self.stopping:
            raise RequestError("the server is stopping.", code="SERVER_STOPPING", headers={"retry-after": "5"})
        async with self.graphs.lease(job.model) as graph:
            self._require_readable(job.question)
            limits = replace(graph.limits, **(job.limits.below(graph.limits) if job.limits else {}))
            if job.plan is not None:
                graph.grammar.require(job.plan)
            await self.places.take(within_s=limits.deadline_s - (time.monotonic() - job.asked), accepted=accepted)
            began = time.monotonic()
            try:
                if admitted is not None:
                    admitted()
                left = max(limits.deadline_s - (began - job.asked), 0.001)
                options: dict[str, Any] = {
                    "seed": self.settings.seed if job.seed is None else job.seed,
                    "run_id": job.run_id,
                    "limits": replace(limits, deadline_s=left),
                    "sampling": job.sampling,
                    "plan": job.plan,
                    "metadata": job.metadata,
                    "on_event": on_event,
                    "tokens": tokens,
                }
                if self.tracing is None:
                    run = await graph.arun(job.question, **options)
                else:
                    run = await self.tracing.run(graph, job.question, **options)
            except asyncio.CancelledError:
                self.metrics.cancelled(graph.preset.name, time.monotonic() - began)
                raise
            finally:
                self.places.give(time.monotonic() - began)
        self.metrics.ended(run)
        if run.record_error:
            logger.error("run %s is not recorded: %s", run.id, run.record_error)
        return run

    async def start(self, job: Job) -> None:
        """Begin a run that goes on by itself. Raises what `answer` raises before a run begins."""
        accepted = asyncio.Event()
        task = asyncio.create_task(self.answer(job, accepted=accepted.set), name=f"run {job.run_id}")
        self._tasks[job.run_id], self._owners[job.run_id] = task, job.client
        task.add_done_callback(lambda done: self._forget(job.run_id, done))
        waiter = asyncio.create_task(accepted.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if not accepted.is_set():
            task.result()

    def waiting(self, run_id: str, client: str | None = None) -> bool:
        """Whether the run was started here, by this client where one is named, and has not ended."""
        return run_id in self._tasks and client in (None, self._owners.get(run_id))

    async def cancel(self, run_id: str, client: str | None = None) -> bool:
        """Cancel a run that was started by `start`, by this client where one is named; False: there is none."""
        task = self._tasks.get(run_id)
        if task is None or not self.waiting(run_id, client):
            return False
        task.cancel()
        await asyncio.wait({task})
        if self.store is not None:
            await self.store.flushed(run_id)
        return True

    def stop(self, *, now: bool = False) -> None:
        """Take no more requests; `now`: cancel the runs that go on by themselves."""
        self.stopping = True
        if now:
            for task in self._tasks.values():
                task.cancel()

    async def drain(self) -> None:
        """Take no more requests, and wait for the runs that go on by themselves."""
        self.stop()
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    def health(self, reload: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What /healthz says; `reload`: about a backbone that follows an alias."""
        out: dict[str, Any] = {
            "status": "ok",
            "version": version(),
            "backbone": self.graphs.backbone.version,
            "uptime_s": round(time.time() - self.started_at, 1),
            "running": self.places.running,
            "waiting": self.places.waiting,
        }
        return out if reload is None else out | {"reload": dict(reload)}

    def _forget(self, run_id: str, task: asyncio.Task[Run]) -> None:
        self._tasks.pop(run_id, None)
        self._owners.pop(run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, RequestError):
            logger.error("run %s: %s", run_id, error)

    def _require_readable(self, question: str) -> None:
        """The bundled model knows the words of microworld alone: say so instead of answering nonsense."""
        if self.settings.backbone not in BUNDLED:
            return
        from jade_graph.microworld.vocabulary import is_foreign, unknown_words

        if is_foreign(question):
            words = ", ".join(repr(w) for w in dict.fromkeys(unknown_words(question)[:5])) or "no word at all"
            raise UsageError(
                "the bundled model jade-tiny knows only the invented microworld and cannot read this question "
                f"({words}).",
                code="FOREIGN_QUESTION",
                hint="jade serve --corpus NAME, over your own documents, or --backbone with a hub id or a folder; "
                "jade microworld show has questions for this one",
            )
