"""What Prometheus reads: requests, runs, tokens, places.

Invariant: labels have few values (routes, presets, statuses, error codes): a client cannot make the series grow.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector

from jade_graph.serve.places import Places
from jade_graph.settings.manifest import version
from jade_graph.types import Run

disable_created_metrics()  # type: ignore[no-untyped-call]  # series beside each counter that say when it began
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one server."""

    def __init__(self, places: Places) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        about = Gauge("jade_info", "The running version.", ["version"], registry=own)
        about.labels(version()).set(1)
        self._requests = Counter("jade_requests", "HTTP requests.", ["route", "method", "status"], registry=own)
        self._request_s = Histogram(
            "jade_request_seconds", "Time to the end of an answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self._runs = Counter("jade_runs", "Runs that ended.", ["preset", "status", "error"], registry=own)
        self._run_s = Histogram("jade_run_seconds", "Time of a run.", ["preset"], buckets=_SECONDS, registry=own)
        self._tokens = Counter("jade_tokens", "Tokens of runs.", ["preset", "kind"], registry=own)
        self._refused = Counter("jade_refused", "Requests refused.", ["code"], registry=own)
        self._feedback = Counter("jade_feedback", "Feedback taken.", registry=own)
        running = Gauge("jade_runs_in_flight", "Runs under way.", registry=own)
        running.set_function(lambda: places.running)
        waiting = Gauge("jade_queue_length", "Requests that wait for a place.", registry=own)
        waiting.set_function(lambda: places.waiting)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def feedback(self) -> None:
        self._feedback.inc()

    def ended(self, run: Run) -> None:
        self._runs.labels(run.preset, run.status, run.error or "").inc()
        self._run_s.labels(run.preset).observe(run.wall_ms / 1000)
        self._tokens.labels(run.preset, "prompt").inc(run.counters.prompt_tokens)
        self._tokens.labels(run.preset, "action").inc(run.counters.action_tokens)

    def cancelled(self, preset: str, seconds: float) -> None:
        self._runs.labels(preset, "failed", "CANCELLED").inc()
        self._run_s.labels(preset).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
