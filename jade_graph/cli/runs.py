"""`jade runs`: the recorded runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.errors import StoreError

if TYPE_CHECKING:
    from jade_graph.runs.store import RunStore

app = group("runs", "List recorded runs, show one as a tree, or send them to a trace store.")


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
    wide: Annotated[
        bool, typer.Option("--wide", help="Whole questions and answers, in as many lines as they take.")
    ] = False,
) -> None:
    """List runs, the newest first: a line each."""
    from jade_graph.cli.console import table
    from jade_graph.runs.filters import RunFilter

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
        out: list[Any] = [
            table(columns, [_row(r) for r in rows], right="calls ms", lines=not wide, spare="preset ms calls plan when")
        ]
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
    from jade_graph.picture.terminal import run_svg, run_tree

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


@command(app)
def send(
    cli: Cli,
    to: Annotated[str, typer.Option(metavar="otlp|mlflow", help="Which kind of trace store.")],
    run: Annotated[
        list[str] | None, typer.Argument(help="Ids of runs; none: all that the options let through.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="otlp: where traces go; else OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="mlflow: the experiment that gets the traces.")] = "jade-runs",
    uri: Annotated[str | None, typer.Option(metavar="URI", help="mlflow: its tracking URI; else registry.url.")] = None,
    sample: Annotated[float, typer.Option(min=0, max=1, help="The share of runs to send, always the same ones.")] = 1.0,
    content: Annotated[bool, typer.Option("--content", help="Send texts too: questions, prompts, answers.")] = False,
    preset: Annotated[str | None, typer.Option(help="Only this preset.")] = None,
    status: Annotated[str | None, typer.Option(help="Only answered or failed.")] = None,
    version: Annotated[str | None, typer.Option(help="Only runs of this backbone version.")] = None,
) -> None:
    """Send recorded runs as traces: OpenTelemetry spans (LangSmith and Langfuse take them), or into MLflow.

    Runs that are there already are not sent again. Texts stay here unless --content is given.
    """
    from jade_graph.errors import unknown
    from jade_graph.runs.filters import RunFilter
    from jade_graph.telemetry import spans as telemetry
    from jade_graph.telemetry.sending import to_mlflow, to_otlp

    if to not in ("otlp", "mlflow"):
        raise unknown("trace store", to, ("otlp", "mlflow"), code="SEND_KIND")
    if not _recorded(cli):
        raise _none()
    with _store(cli) as store, cli.out.progress("sending", "runs") as tick:
        ids = [store.get(each).id for each in run] if run else None
        found = store.iter_runs(RunFilter(preset=preset, status=status, version=version), ids=ids)
        chosen = (each for each in found if telemetry.sampled(each.id, sample))
        if to == "otlp":
            sent = to_otlp(chosen, endpoint=endpoint, content=content, progress=tick)
        else:
            from jade_graph.registry.place import Place

            place = Place.find(uri, settings=cli.settings)
            sent = to_mlflow(chosen, place, experiment=experiment, content=content, progress=tick)
    known = f", {sent.known} were there already" if sent.known else ""
    said = f", {sent.assessments} assessments are new or changed" if sent.assessments else ""
    cli.out.result(
        {
            "to": to,
            "runs": sent.runs,
            "spans": sent.spans,
            "already_there": sent.known,
            "assessments": sent.assessments,
        },
        lambda: f"{sent.runs} runs sent as {sent.spans} spans{known}{said}",
    )


@command(app)
def prune(
    cli: Cli,
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Runs beyond the newest N go.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs that began longer ago go: 12h, 30d, 8w.")
    ] = None,
    rollouts: Annotated[bool, typer.Option("--rollouts", help="Runs of rollouts too, which are learned from.")] = False,
    rated: Annotated[bool, typer.Option("--rated", help="Runs with feedback or judgements too.")] = False,
    compact: Annotated[bool, typer.Option(help="Give SQLite's room back to the disk.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove them; else only say how many.")] = False,
) -> None:
    """Remove old runs with their actions. Without --yes it only counts.

    Runs under way stay, and unless asked for those of rollouts and those that people or judges spoke of. Exports,
    registered versions and the promotion log hold what they need themselves: no run is needed for them.
    """
    from jade_graph.cli.pruning import prune as take_away
    from jade_graph.runs.retention import Rule, seconds

    rule = Rule(keep, None if older_than is None else seconds(older_than), rollouts, rated)
    if not _recorded(cli):
        raise _none()
    with _store(cli) as store:
        take_away(cli, store, rule, yes=yes, compact=compact)


def _recorded(cli: Cli) -> bool:
    """Whether there is a store: to look must not make one."""
    where = cli.settings.store_url
    return isinstance(where, str) or where.exists()


def _store(cli: Cli) -> RunStore:
    from jade_graph.runs.store import RunStore

    return RunStore(cli.settings.store_url)


def _newest(store: RunStore) -> str:
    rows = store.list_runs(limit=1)
    if not rows:
        raise _none()
    return str(rows[0]["id"])


def _none() -> StoreError:
    return StoreError("no run is recorded yet.", code="RUN_NOT_FOUND", hint='jade ask "a question"')


def _plain(run: Any) -> dict[str, Any]:
    from jade_graph.settings.plain import jsonable

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
