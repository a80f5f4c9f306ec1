"""The routes.

Invariant: a route reads a request, asks the service, and writes the answer; what is decided is decided elsewhere. When
the client leaves, its run is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from jade_graph.errors import JadeError
from jade_graph.serve import feedback, replies, schemas
from jade_graph.serve.answers import Json
from jade_graph.serve.guard import Guard, problem
from jade_graph.serve.keys import Keys, Rate
from jade_graph.serve.metrics import CONTENT_TYPE
from jade_graph.serve.openapi import ERRORS, document
from jade_graph.serve.problems import RequestError
from jade_graph.serve.requests import (
    Body,
    ChatRequest,
    FeedbackRequest,
    RunRequest,
    ignored_by,
    question_of,
    read,
    require_text,
)
from jade_graph.serve.service import Job, Service
from jade_graph.serve.stream import EventStream, unless_gone
from jade_graph.settings.manifest import version
from jade_graph.types import Run

if TYPE_CHECKING:
    from jade_graph.runs.store import RunStore

RunId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[\w.:@-]+$", description="or the beginning of one")]


def create_app(service: Service, *, keys: Keys | None = None, local: bool = False, reload: Any = None) -> Guard:
    """The ASGI app of a service.

    Args:
        keys: who may ask; none: everybody.
        local: refuse requests to names other than loopback's (for servers without keys).
        reload: gives what /healthz says about a backbone that follows an alias, or None.
    """
    settings = service.settings.serve
    guarded = keys or Keys()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        await service.drain()

    app = FastAPI(
        title="JADE Graph",
        version=version(),
        description="Questions answered by planner and executor roles of one language model. Errors have OpenAI's "
        "shape with stable codes.",
        docs_url=None,  # these pages would load scripts from the network
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _errors(app, service)
    _questions(app, service)
    shared = len(set(guarded.names.values())) < 2 if settings.shared is None else settings.shared
    _runs(app, service, shared)
    _about(app, service, reload)
    described = document(app, keys=bool(guarded))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Json(described)

    return Guard(
        app,
        keys=guarded,
        rate=Rate(settings.rate),
        max_body=settings.max_body_kb * 1024,
        metrics=service.metrics,
        local=local,
    )


def _questions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        operation_id="chat",
        summary="Answer the last message",
        responses={
            200: {
                "model": schemas.ChatCompletion,
                "content": {"text/event-stream": {}},
                "description": "The answer; with `stream` as server-sent events.",
            },
            **ERRORS,
        },
    )
    async def chat(request: Request) -> Response:
        asked = await _body(request, ChatRequest)
        job = _chat_job(request, asked)
        request.state.run_id = job.run_id
        options = asked.jade
        ignored, events = ignored_by(asked), options is not None and bool(options.events)
        if asked.stream:
            usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
            tokens = options is None or options.tokens is not False
            stream = EventStream(service, job, ignored, events=events, tokens=tokens, usage=usage)
            await unless_gone(request.receive, stream.begin())
            return stream
        run = job.require_answer(await unless_gone(request.receive, service.answer(job)))
        return Json(replies.completion(run, ignored, steps=events))

    @app.get(
        "/v1/models",
        operation_id="models",
        summary="What `model` may be",
        responses={200: {"model": schemas.ModelList}, **ERRORS},
    )
    async def models() -> Response:
        return Json({"object": "list", "data": await service.graphs.models()})

    @app.get(
        "/v1/models/{model}",
        operation_id="model",
        summary="One model",
        responses={200: {"model": schemas.ModelBody}, **ERRORS},
    )
    async def model(model: Annotated[str, Path(max_length=200)]) -> Response:
        found = await service.graphs.models()
        for entry in found:
            if entry["id"] == model:
                return Json(entry)
        raise RequestError(f"there is no model {model!r} here.", code="UNKNOWN_MODEL", hint="GET /v1/models")


def _runs(app: FastAPI, service: Service, shared: bool) -> None:
    """Routes over recorded runs; not `shared`: a key sees, cancels and rates its own, as if there were no others."""

    def asker(request: Request) -> str | None:
        return None if shared else str(request.state.client)

    @app.post(
        "/v1/runs",
        operation_id="startRun",
        summary="Begin a run; it goes on when the client leaves",
        status_code=202,
        responses={200: {"model": schemas.RunBody}, 202: {"model": schemas.RunBody}, **ERRORS},
    )
    async def start(request: Request) -> Response:
        asked = await _body(request, RunRequest)
        _store(service)
        job = Job(
            question=require_text(asked.question, "question"),
            model=asked.model or "",
            seed=asked.seed,
            plan=asked.plan,
            sampling=_sampling(asked),
            limits=asked.limits,
            metadata=_metadata(request, "runs", asked.metadata),
        )
        request.state.run_id = job.run_id
        if asked.wait:
            run = await unless_gone(request.receive, service.answer(job))
            return Json(replies.run_body(run))
        await service.start(job)
        body = {"id": job.run_id, "object": "run", "status": "queued"}
        return Json(body, 202, {"location": f"/v1/runs/{job.run_id}"})

    @app.get(
        "/v1/runs",
        operation_id="listRuns",
        summary="Recorded runs, the newest first",
        responses={200: {"model": schemas.RunList}, **ERRORS},
    )
    async def list_(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        preset: Annotated[str | None, Query(max_length=80)] = None,
        status: Annotated[str | None, Query(pattern="^(running|answered|failed)$")] = None,
        plan: Annotated[str | None, Query(max_length=200)] = None,
        text: Annotated[str | None, Query(max_length=1000)] = None,
        backbone_version: Annotated[str | None, Query(max_length=200)] = None,
    ) -> Response:
        from jade_graph.runs.filters import RunFilter

        store = _store(service)
        where = RunFilter(preset=preset, status=status, plan=plan, text=text, version=backbone_version)
        where = replace(where, client=asker(request))

        def rows() -> tuple[list[dict[str, Any]], int]:
            return store.list_runs(where, limit=limit, offset=offset), store.count(where)

        found, total = await asyncio.to_thread(rows)
        more = offset + len(found) < total
        return Json({"object": "list", "data": [replies.row_body(r) for r in found], "total": total, "has_more": more})

    @app.get(
        "/v1/runs/{run_id}",
        operation_id="getRun",
        summary="One run with its trace and steps",
        responses={200: {"model": schemas.RunBody}, **ERRORS},
    )
    async def get(request: Request, run_id: RunId, tokens: Annotated[bool, Query()] = False) -> Response:
        wanted = run_id.removeprefix(replies.PREFIX)
        try:
            run = await asyncio.to_thread(_found, service, wanted, asker(request))
        except JadeError as error:
            if error.error_code == "RUN_NOT_FOUND" and service.waiting(wanted, asker(request)):
                return Json({"id": wanted, "object": "run", "status": "queued"})
            raise
        return Json(replies.run_body(run, tokens=tokens))

    @app.post(
        "/v1/runs/{run_id}/cancel",
        operation_id="cancelRun",
        summary="Cancel a run that was begun with POST /v1/runs",
        responses={200: {"model": schemas.RunBody}, **ERRORS},
    )
    async def cancel(request: Request, run_id: RunId) -> Response:
        _store(service)
        if not await service.cancel(run_id, asker(request)):
            found = await asyncio.to_thread(_found, service, run_id, asker(request))
            raise RequestError(
                f"run {found.id!r} is {found.status}, and not under way by POST /v1/runs here.", code="RUN_ENDED"
            )
        return Json({"id": run_id, "object": "run", "status": "failed", "error": "CANCELLED"})

    @app.post(
        "/v1/feedback",
        operation_id="feedback",
        summary="Say what a run was worth",
        status_code=201,
        responses={201: {"model": schemas.FeedbackBody}, **ERRORS},
    )
    async def give(request: Request) -> Response:
        asked = await _body(request, FeedbackRequest)
        store, rated = _store(service), asked.run_id.removeprefix(replies.PREFIX)

        def word() -> dict[str, Any]:
            run = feedback.exactly(rated, lambda run_id: _found(service, run_id, asker(request)))
            return feedback.give(store, run, asked, request.state.client)

        told = await asyncio.to_thread(word)
        service.metrics.feedback()
        return Json(told, 201)


def _about(app: FastAPI, service: Service, reload: Callable[[], Mapping[str, Any] | None] | None) -> None:
    @app.get(
        "/healthz",
        operation_id="health",
        summary="Alive",
        responses={200: {"model": schemas.Health}},
    )
    async def health() -> Response:
        return Json(service.health(reload() if reload is not None else None))

    @app.get(
        "/readyz",
        operation_id="ready",
        summary="Whether requests are taken: 503 while the server stops",
        responses={200: {"model": schemas.Ready}, 503: {"model": schemas.Problem}},
    )
    async def ready() -> Response:
        if service.stopping:
            return problem(RequestError("the server is stopping.", code="SERVER_STOPPING"))
        return Json({"status": "ready"})

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="For Prometheus",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **ERRORS},
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _errors(app: FastAPI, service: Service) -> None:
    async def ours(request: Request, error: Exception) -> Response:
        del request
        return problem(error, service.metrics)

    async def theirs(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            known = _methods(app, request)
            headers["Allow"] = ", ".join(known)
            return problem(
                RequestError(
                    f"{request.url.path!r} does not take {request.method}.",
                    code="WRONG_METHOD",
                    known=known,
                    headers=headers,
                )
            )
        if error.status_code == 404:
            paths = sorted(path for route in app.routes if (path := getattr(route, "path", "")))
            return problem(
                RequestError(f"there is nothing at {request.url.path[:200]!r}.", code="NO_SUCH_PATH", known=paths)
            )
        return problem(RequestError(f"{error.detail}.", headers=headers))

    async def invalid(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return problem(RequestError(f"{name!r}: {first['msg']}.", code="BAD_PARAMETER", param=name))

    app.add_exception_handler(JadeError, ours)
    app.add_exception_handler(HTTPException, theirs)
    app.add_exception_handler(RequestValidationError, invalid)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What a path takes: the router itself names the methods of the first route that fits."""
    fitting = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in fitting for method in getattr(route, "methods", None) or ()}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))  # the guard answers HEAD as GET, without the body


# --- requests ---------------------------------------------------------------------------------------------------------
async def _body(request: Request, kind: type[Body]) -> Body:
    """The request's body. Raises `RequestError` BODY_NOT_JSON, and what `requests.read` raises."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            f"the content type is {given[:100]!r}.", code="BODY_NOT_JSON", hint="Content-Type: application/json"
        )
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise RequestError(f"the body is encoded with {coding[:100]!r}.", code="BODY_NOT_JSON", hint="send it plain")
    return read(kind, await request.body())


def _chat_job(request: Request, asked: ChatRequest) -> Job:
    options = asked.jade
    return Job(
        question=question_of(asked.messages),
        model=asked.model or "",
        seed=asked.seed,
        plan=options.plan if options else None,
        sampling=_sampling(asked),
        limits=options.limits if options else None,
        metadata=_metadata(request, "chat", asked.metadata, user=asked.user),
    )


def _sampling(asked: ChatRequest | RunRequest) -> dict[str, float]:
    given = {"temperature": asked.temperature, "top_p": asked.top_p}
    return {name: float(value) for name, value in given.items() if value is not None}


def _metadata(request: Request, route: str, given: Mapping[str, str] | None, user: str | None = None) -> dict[str, Any]:
    """What is recorded of who asked. The client's own is kept apart: it must not pass for gold answers or a rollout."""
    served = {"route": route, "client": request.state.client, "request_id": request.state.request_id}
    more = {"user": user, "metadata": dict(given) if given else None}
    return {"served": served | {name: value for name, value in more.items() if value}}


def _found(service: Service, run_id: str, client: str | None) -> Run:
    """A run as this client sees it (None: all of them). Raises `StoreError` RUN_NOT_FOUND, RUN_AMBIGUOUS."""
    from jade_graph.runs.filters import RunFilter

    return _store(service).get(run_id, None if client is None else RunFilter(client=client))


def _store(service: Service) -> RunStore:
    if service.store is None:
        raise RequestError("this server records no runs.", code="NO_RUN_STORE", hint="start it without --no-record")
    return service.store
