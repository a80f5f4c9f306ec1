"""`jade runs`: the recorded runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.errors import StoreError

if TYPE_CHECKING:
    from jade_graph.store import RunStore

app = group("runs", "List recorded runs, or show one as a tree.")


@command(app, "list")
def list_(
    cli: Cli,
    preset: Annotated[str | None, typer.Option(help="Only this preset.")] = None,
    status: Annotated[str | None, typer.Option(help="Only answered, failed or running.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only this workflow, e.g. QR,R,AG.")] = None,
    text: Annotated[str | None, typer.Option(help="Only questions that contain this.")] = None,
    question_id: Annotated[str | None, typer.Option(help="Only runs of this data-set question.")] = None,
    version: Annotated[str | None, typer.Option(help="Only runs of this backbone version.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the newest.")] = 0,
) -> None:
    """List runs, the newest first."""
    from jade_graph.console import table
    from jade_graph.store import RunFilter

    rows, total = list[dict[str, Any]](), 0
    if _recorded(cli):
        with _store(cli) as store:
            where = RunFilter(preset, status, question_id, text, plan, version)
            rows, total = store.list_runs(where, limit=limit, offset=offset), store.count(where)

    def show() -> list[Any]:
        from rich.text import Text

        if not rows:
            return [Text('No runs yet. Try: jade ask "a question"', style="dim")]
        columns = ("run", "when", "preset", "status", "plan", "question", "answer", "calls", "ms")
        out: list[Any] = [table(columns, [_row(r) for r in rows], right="calls ms")]
        return [*out, Text(f"{len(rows)} of {total} runs. jade runs show RUN", style="dim")]

    cli.out.result({"runs": rows, "total": total}, show)


@command(app)
def show(
    cli: Cli,
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it; last: the newest.")] = "last",
    documents: Annotated[bool, typer.Option(help="Name the retrieved passages.")] = True,
    width: Annotated[int, typer.Option(min=20, help="Cut texts to about this many characters.")] = 90,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Also save the tree as a picture.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also save it as one page to step through and to send.")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the picture as Mermaid text instead.")] = False,
) -> None:
    """Show one run as a tree: plan, sub-questions, documents, answers, tokens, times."""
    from jade_graph.render import run_svg, run_tree

    if not _recorded(cli):
        raise _none()
    with _store(cli) as store:
        found = store.get(_newest(store) if run == "last" else run)
    if svg is not None:
        svg.write_text(run_svg(found, documents=documents), encoding="utf-8")
        cli.out.log(f"saved {svg}")
    if html is not None:
        from jade_graph.picture import page
        from jade_graph.picture.spelling import speller

        html.write_text(page(found, pieces=speller(cli.settings, found)), encoding="utf-8")
        cli.out.log(f"saved {html}")
    if mermaid:
        from jade_graph.picture import mermaid as drawn

        text = drawn(found)
        cli.out.result({"run": found.id, "mermaid": text}, lambda: _exactly(text))
        return
    cli.out.result(_plain(found), lambda: run_tree(found, documents=documents, width=width))


def _exactly(text: str) -> Any:
    """Text that a terminal neither wraps nor colours."""
    from rich.text import Text

    return Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")


def _recorded(cli: Cli) -> bool:
    """Whether there is a store: to look must not make one."""
    where = cli.settings.store_url
    return isinstance(where, str) or where.exists()


def _store(cli: Cli) -> RunStore:
    from jade_graph.store import RunStore

    return RunStore(cli.settings.store_url)


def _newest(store: RunStore) -> str:
    rows = store.list_runs(limit=1)
    if not rows:
        raise _none()
    return str(rows[0]["id"])


def _none() -> StoreError:
    return StoreError("no run is recorded yet.", code="RUN_NOT_FOUND", hint='jade ask "a question"')


def _plain(run: Any) -> dict[str, Any]:
    from jade_graph.console import jsonable

    return dict(jsonable(run))


def _row(r: dict[str, Any]) -> tuple[Any, ...]:
    from rich.text import Text

    style = {"answered": "green", "failed": "red"}.get(r["status"], "yellow")
    when = datetime.fromtimestamp(r["started_at"]).astimezone().strftime("%m-%d %H:%M:%S")
    answer = r["answer"] if r["status"] != "failed" else r["error"]
    return (
        r["id"][:8],
        when,
        r["preset"],
        Text(r["status"], style=style),
        r["plan"],
        r["question"],
        answer,
        r["calls"],
        f"{r['wall_ms']:,.0f}",
    )
