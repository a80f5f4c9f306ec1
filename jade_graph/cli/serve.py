"""`jade serve`: answer questions over HTTP, in the shape that OpenAI's clients speak."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli import logs
from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    from jade_graph.serve.service import Service

app = single()


@command(app)
def serve(
    cli: Cli,
    host: Annotated[str | None, typer.Option(help="Address to listen on; other than loopback only with a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any free one.", show_default="8000")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; made by jade index.")] = None,
    preset: Annotated[str | None, typer.Option(help="The default method; jade presets list.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="tiny, a hub id, a folder, models:/NAME@ALIAS, or openai:URL#MODEL.")
    ] = None,
    presets: Annotated[str | None, typer.Option(help="Methods to offer, separated by commas; all.")] = None,
    keys_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="API keys, one a line: KEY, or NAME KEY.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Most runs at once.", show_default="64")] = None,
    queue: Annotated[int | None, typer.Option(help="Most requests that wait.", show_default="128")] = None,
    rate: Annotated[int | None, typer.Option(help="Most requests a minute of one key.", show_default="any")] = None,
    record: Annotated[bool, typer.Option(help="Record the runs.")] = True,
) -> None:
    """Answer questions over HTTP until Ctrl-C.

    OpenAI's clients work with base_url=http://127.0.0.1:8000/v1. A key can also be set in JADE_SERVE__KEYS. A first
    Ctrl-C finishes what is in flight, a second one cancels it.
    """
    given = {"host": host, "port": port, "keys_file": keys_file, "presets": presets}
    given |= {"concurrency": concurrency, "queue": queue, "rate": rate}
    for name, value in given.items():
        cli.put(f"serve.{name}", value)
    for name, value in {"corpus": corpus, "preset": preset, "backbone": backbone}.items():
        cli.put(name, value)
    _require_installed()
    logs.begin(cli.settings.log, everything=cli.out.verbose, quiet=cli.out.quiet)
    from jade_graph.serve.app import create_app
    from jade_graph.serve.keys import read_keys
    from jade_graph.serve.server import gate_of, is_loopback, listen, require_safe, url_of
    from jade_graph.serve.server import serve as run
    from jade_graph.serve.setup import opened, reload_status

    settings = cli.settings.serve
    keys = read_keys(settings)
    require_safe(settings, keys)
    with listen(settings) as bound, ExitStack() as stack:
        with indexing(cli) as progress:
            ready = stack.enter_context(opened(cli.config, record=record, progress=progress))
        local = is_loopback(settings.host) and not keys
        api = create_app(ready, keys=keys, local=local, reload=reload_status(ready.graphs.backbone))
        run(
            api,
            bound,
            gate=gate_of(settings, ready.metrics),
            deadline_s=max(graph.limits.deadline_s for graph in ready.graphs.all()),
            started=lambda: _say(cli, ready, url_of(bound), keyed=bool(keys)),
            stopping=lambda again: _stop(cli, ready, again),
        )
    cli.out.log("stopped")


def _say(cli: Cli, service: Service, url: str, *, keyed: bool) -> None:
    graphs = service.graphs
    told = {
        "url": f"{url}/v1",
        "models": list(graphs.presets),
        "default": graphs.default,
        "backbone": graphs.backbone.version,
        "corpus_id": graphs.main.retriever.corpus_id if graphs.main.retriever else None,
        "keys": keyed,
        "recording": service.store.shown if service.store is not None else None,
        "tracing": service.tracing is not None,
    }

    def show() -> list[Any]:
        from rich.text import Text

        key = "Bearer key needed" if keyed else "no key needed, this machine only"
        return [
            Text.assemble(("serving ", "green"), (f"{url}/v1", "bold"), f"  ({key}; Ctrl-C stops)"),
            Text(f"  models   {', '.join(graphs.presets)} (default {graphs.default})"),
            Text(f"  backbone {told['backbone']}"),
            Text(f"  corpus   {told['corpus_id'] or 'none'}"),
            Text(f"  runs     {told['recording'] or 'not recorded'}"),
        ]

    cli.out.result(told, show)


def _stop(cli: Cli, service: Service, again: bool) -> None:
    service.stop(now=again)
    left = service.places.running + service.places.waiting
    if again:
        cli.out.log(f"cancelling {left} requests")
    elif left:
        cli.out.log(f"stopping: {left} requests are in flight and will be answered (Ctrl-C again cancels them)")


def _require_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"serving needs a package that is not installed: {error.name}.",
            code="SERVE_MISSING",
            hint='pip install "jade-graph[serve]"',
        ) from error
