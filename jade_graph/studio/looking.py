"""The studio's look inside a decision: who can be looked into, and one look at a time on a thread of its own.

Invariant: reading alone; a look is begun by a person, its cost is told before its first batch and bounded, and what
goes wrong is the error's own words.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse

from jade_graph.errors import JadeError
from jade_graph.settings.plain import jsonable
from jade_graph.studio.shared import Studio
from jade_graph.types import Chooses
from jade_graph.workflow.replay import action_at


@dataclass
class _Job:
    note: str = "waiting for the look before it"
    error: str = ""
    value: dict[str, Any] | None = None


def add(app: FastAPI, studio: Studio) -> None:
    """Add the routes under /api/runs/RUN/look."""
    jobs: dict[tuple[str, int], _Job] = {}
    one = threading.Lock()

    @app.get("/api/runs/{run_id}/look/{seq}")
    def state(run_id: str, seq: int) -> JSONResponse:
        """Whether the action can be looked into, its choices, and how far a look is."""
        try:
            run, _ = studio.run(run_id)
            t = action_at(run, seq)
        except JadeError as error:
            return JSONResponse({"error": error.as_dict()}, 404)
        job = jobs.get((run.id, seq))
        return JSONResponse(
            {
                "able": bool(t.action_token_ids) and t.parsed is not None and _chooses(t.role),
                "documents": _documents(run, t),
                "model": studio.settings.backbone,
                "note": job.note if job else "",
                "error": job.error if job else "",
                "value": jsonable(job.value) if job and job.value else None,
            }
        )

    @app.post("/api/runs/{run_id}/look/{seq}", status_code=202)
    def begin(run_id: str, seq: int, wanted: dict[str, Any] = Body(default={})) -> JSONResponse:  # noqa: B008
        try:
            run, _ = studio.run(run_id)
            action_at(run, seq)
        except JadeError as error:
            return JSONResponse({"error": error.as_dict()}, 404)
        job = jobs[run.id, seq] = _Job()

        def work() -> None:
            try:
                with one:
                    job.value = _look(studio, run, seq, wanted, job)
            except JadeError as error:
                job.error = str(error)
            except Exception as error:
                job.error = f"{type(error).__name__}: {error}"

        threading.Thread(target=work, name=f"look-{run.id[:6]}", daemon=True).start()
        return JSONResponse({"note": job.note}, 202)


def _look(studio: Studio, run: Any, seq: int, wanted: dict[str, Any], job: _Job) -> dict[str, Any]:
    from jade_graph.assembly.models import open_backbone
    from jade_graph.patching import cost, look
    from jade_graph.patching.decisions import Asked, decisions
    from jade_graph.patching.telling import LIMIT, model_of, nearest, of_decision, require_cost
    from jade_graph.sync import run_sync

    job.note = "loading the model"
    document = wanted.get("document")
    backbone = open_backbone(studio.settings, str(wanted.get("model") or "") or None)
    try:
        with model_of(backbone) as (model, codec, version):
            asked = Asked(document if isinstance(document, int) else None)
            chosen = nearest(model, decisions(codec, run, action_at(run, seq), asked))
            price = cost(model, [chosen.pair])
            require_cost(price.tokens, LIMIT)
            told = f"{price.tokens:,} tokens through the model in {price.passes} batches"
            job.note = told

            def tick(done: int, total: int) -> None:
                job.note = f"{told}: {done} of {total}"

            return of_decision(codec, chosen, look(model, [chosen.pair], tick=tick), version)
    finally:
        run_sync(backbone.aclose())


def _chooses(role: str) -> bool:
    from jade_graph import plugins

    return role in plugins.names("jade.roles") and isinstance(plugins.load("jade.roles", role), Chooses)


def _documents(run: Any, t: Any) -> int:
    """How many documents the action chose among; 0 where it chose something else."""
    if t.role != "DS":
        return 0
    own = [o for o in run.transitions if o.trace_node == t.trace_node and o.seq < t.seq]
    found = [o.parsed["documents"] for o in own if isinstance(o.parsed, dict) and o.parsed.get("documents")]
    return len(found[-1]) if found else 0
