"""`jade studio`: the local page that shows, forks and compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    from jade_graph.settings.config import Config

app = single()
PORT = 8420


@command(app)
def studio(
    cli: Cli,
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = PORT,
    token: Annotated[
        str | None, typer.Option(help="What visitors must show, 16 characters or more.", envvar="JADE_STUDIO_TOKEN")
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
    store: Annotated[str | None, typer.Option(metavar="URL", help="Run store; default: the setting store.url.")] = None,
) -> None:
    """Open JADE Studio: see runs as they unfold, step through them, fork them, compare versions.

    It listens on this machine alone, reads the run store and starts runs; Ctrl-C ends it.
    """
    cli.put("store.url", store)
    _require()
    from jade_graph.studio import guard

    guard.require_token(host, token)
    _serve(cli, host, port, token, open_)


def _require() -> None:
    try:
        import nicegui  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "the studio needs NiceGUI, which is not installed.",
            code="STUDIO_EXTRA",
            hint="pip install 'jade-graph[studio]'",
        ) from error


def _serve(cli: Cli, host: str, port: int, token: str | None, open_: bool) -> None:
    import socket
    import webbrowser

    import uvicorn

    from jade_graph.settings.config import load_config
    from jade_graph.studio.app import build
    from jade_graph.studio.shared import Studio

    def configured(changes: Sequence[str]) -> Config:
        return load_config(config=cli.config_file, overrides=[*cli.overrides, *changes])

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"the studio cannot listen on {host}:{port}: {error.strerror or error}.",
            code="STUDIO_PORT",
            hint="jade studio --port 0",
        ) from error
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
    state = Studio(configured)
    state.follow()
    application = build(state, host=host, token=token)
    server = uvicorn.Server(
        uvicorn.Config(application, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    )
    cli.out.result({"url": url}, lambda: f"JADE Studio: {url}   (Ctrl-C ends it)")
    if open_:
        webbrowser.open(url)
    server.run(sockets=[listening])
