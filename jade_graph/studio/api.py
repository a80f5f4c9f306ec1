"""What the run page asks for, as JSON.

Invariant: reading only. A run that has not begun yet is a 202 with what is being waited for; an error is its code and
its words, with the status that fits. What a run that was asked here says is streamed while it is written, and is gone
once it has ended: the record has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from jade_graph.errors import JadeError
from jade_graph.picture.details import details
from jade_graph.picture.text import clean
from jade_graph.studio.room import Job
from jade_graph.studio.shared import Studio
from jade_graph.workflow.replay import first_difference

_LOOK_S = 0.04


def add(app: FastAPI, studio: Studio) -> None:
    """Add the routes under /api."""

    def reply(value: Any, status: int = 200) -> Response:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return Response(body.encode("utf-8", "replace"), status, media_type="application/json")

    def failed(error: JadeError) -> Response:
        missing = error.error_code == "RUN_NOT_FOUND"
        return reply({"error": error.as_dict()}, 404 if missing else 400)

    @app.get("/api/runs/{run_id}")
    def run(run_id: str, since: str = "") -> Response:
        job = studio.room.jobs.get(run_id)
        try:
            found, _ = studio.run(run_id)
        except JadeError as error:
            if job is not None and error.error_code == "RUN_NOT_FOUND":
                return reply({"note": job.note, "failed": job.failed}, 202)
            return failed(error)
        if since and since == studio.mark(found):
            return Response(status_code=204)
        return reply(studio.view(found.id))

    @app.get("/api/runs/{run_id}/answer")
    async def answer(run_id: str) -> Response:
        """What the run has said of its answer, whenever it changes; 204, after which a browser asks no more, where it
        is not under way here."""
        job = studio.room.jobs.get(run_id)
        if job is None or job.over:
            return Response(status_code=204)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_said(job), media_type="text/event-stream", headers=headers)

    @app.get("/api/runs/{run_id}/boxes/{key}")
    def box(run_id: str, key: str) -> Response:
        try:
            found, pieces = studio.run(run_id)
        except JadeError as error:
            return failed(error)
        shown = details(found, key, pieces=pieces)
        return reply(shown, 200 if shown else 404)

    @app.get("/api/differences/{one}/{other}")
    def difference(one: str, other: str) -> Response:
        """The boxes in which two runs part first, and whether both have ended."""
        try:
            a, b = studio.run(one)[0], studio.run(other)[0]
        except JadeError as error:
            begun = one not in studio.room.jobs and other not in studio.room.jobs
            return failed(error) if begun else reply({"told": None, "ended": False}, 202)
        first, second = first_difference(a, b)
        ended = a.status != "running" and b.status != "running"
        told = None
        if first is not None or second is not None:
            known = first or second
            assert known is not None
            texts = [t.action_text if t is not None else "(nothing)" for t in (first, second)]
            told = {"role": known.role, "question": known.trace_node, "one": texts[0], "other": texts[1]}
        return reply(
            {
                "one": f"a{first.seq}" if first else None,
                "other": f"a{second.seq}" if second else None,
                "told": told,
                "ended": ended,
                "question": clean(a.question),
                "answers": [a.answer or a.error or "", b.answer or b.error or ""],
            }
        )


async def _said(job: Job) -> AsyncIterator[bytes]:
    told = ""
    while not job.over:
        if job.said != told:
            told = job.said
            # ASCII alone: the text may hold what ends a line.
            yield b"data: " + json.dumps(told).encode() + b"\n\n"
        await asyncio.sleep(_LOOK_S)
