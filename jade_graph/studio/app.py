"""The studio as one web application: pages, data, style sheet, guard.

Invariant: one studio a process (NiceGUI's pages belong to the process). Whatever is asked passes the guard first.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from nicegui import Client, ui
from nicegui import app as pages
from nicegui.page import page

from jade_graph.settings.addresses import is_loopback
from jade_graph.studio import api, ask_page, guard, looking, run_page, shell
from jade_graph.studio.compare_page import ComparePage
from jade_graph.studio.corpus_page import CorpusPage
from jade_graph.studio.learning_page import LearningPage
from jade_graph.studio.runs_page import RunsPage
from jade_graph.studio.shared import Studio

PATIENCE_S = 180.0
"""Seconds that a page may take to be built: a busy machine is no reason to give up."""
_NO_PAGES = ("/_nicegui", "/api/", "/assets/")
_RECONNECT_S = 60.0  # NiceGUI pings a page by it, and takes one that answers late for gone


def build(studio: Studio, *, host: str = "127.0.0.1", token: str | None = None) -> FastAPI:
    """The application. Raises `UsageError` STUDIO_TOKEN where others could reach it and there is no token."""
    guard.require_token(host, token)
    app = FastAPI(title="JADE Studio", docs_url=None, redoc_url=None, openapi_url=None)
    api.add(app, studio)
    looking.add(app, studio)
    _assets(app)
    _pages(studio)
    _missing()
    ui.run_with(
        app,
        title="JADE Studio",
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        favicon="🔷",
        reconnect_timeout=_RECONNECT_S,
    )
    local = is_loopback(host)

    def outermost(inner: Any) -> guard.Guard:
        return guard.Guard(inner, token=token, local=local)

    app.add_middleware(outermost)
    return app


def _assets(app: FastAPI) -> None:
    @app.get("/assets/studio.css")
    def style() -> Response:
        return Response(shell.style(), media_type="text/css", headers={"cache-control": "no-cache"})

    @app.get("/assets/studio.js")
    def script() -> Response:
        return Response(shell.script(), media_type="text/javascript", headers={"cache-control": "no-cache"})


def _pages(studio: Studio) -> None:
    pages.on_shutdown(studio.close)

    @ui.page("/", response_timeout=PATIENCE_S)
    async def runs(request: Request) -> None:
        with shell.frame("Runs", "Runs"):
            await RunsPage(studio, _query(request)).build()

    @ui.page("/run/{run_id}", response_timeout=PATIENCE_S)
    def run(request: Request, run_id: str) -> None:
        with shell.frame(f"Run {run_id[:8]}", "Runs"):
            run_page.build(studio, run_id, _query(request))

    @ui.page("/pair", response_timeout=PATIENCE_S)
    def pair(a: str = "", b: str = "") -> None:
        with shell.frame("Side by side", "Compare"):
            if a and b:
                run_page.build_pair(a, b)
            else:
                shell.empty("Two runs are needed", "Fork a run, or choose a question on the page Compare.")

    @ui.page("/ask", response_timeout=PATIENCE_S)
    async def ask(request: Request) -> None:
        with shell.frame("Ask", "Ask"):
            await ask_page.build(studio, _query(request))

    @ui.page("/compare", response_timeout=PATIENCE_S)
    async def compare(request: Request) -> None:
        with shell.frame("Compare", "Compare"):
            await ComparePage(studio, _query(request)).build()

    @ui.page("/learning", response_timeout=PATIENCE_S)
    async def learning(request: Request) -> None:
        with shell.frame("Learning", "Learning"):
            await LearningPage(studio, _query(request)).build()

    @ui.page("/corpus", response_timeout=PATIENCE_S)
    async def corpus(request: Request) -> None:
        with shell.frame("Corpus", "Corpus"):
            await CorpusPage(studio, _query(request)).build()


def _missing() -> None:
    @pages.exception_handler(404)
    async def missing(request: Request, error: HTTPException) -> Response:
        if request.url.path.startswith(_NO_PAGES):
            return await http_exception_handler(request, error)
        with Client(page(""), request=request) as client, shell.frame("Not found", ""):
            shell.empty("There is no such page", "The views are above; every run that is recorded is under Runs.")
        return client.build_response(request, 404)


def _query(request: Request) -> dict[str, str]:
    return dict(request.query_params)
