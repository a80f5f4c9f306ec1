"""`jade export`: recorded runs as a folder of Parquet with a manifest and a data card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.leaving import left_out
from jade_graph.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

app = single()


@command(app, "export")
def export(
    cli: Cli,
    rollout: Annotated[str | None, typer.Argument(help="A rollout's id; default: all recorded runs.")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write; must not be there yet.")] = ...,  # type: ignore[assignment]
    preset: Annotated[str | None, typer.Option(help="Only runs of this preset.")] = None,
    version: Annotated[str | None, typer.Option(help="Only runs of this backbone version.")] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow several backbone versions.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
) -> None:
    """Write runs and their transitions as Parquet that datasets and pandas read.

    The last attempt of each run that ended; failed runs with their error. Runs still running are left out and counted.
    """
    from jade_graph.runs.export import export_store
    from jade_graph.runs.filters import RunFilter
    from jade_graph.runs.store import RunStore

    where = cli.settings.store_url
    if not (isinstance(where, str) or where.exists()):  # to look must not make one
        raise DataError("no run is recorded yet.", code="EXPORT_EMPTY", hint="jade rollout DATASET")
    with RunStore(where) as store, cli.out.progress("exporting", "runs") as tick:
        manifest = export_store(
            store,
            out,
            rollout=rollout,
            where=RunFilter(preset=preset, version=version),
            force=force,
            mixed=mixed,
            progress=tick,
        )
    cli.out.result({"folder": str(out), **manifest}, lambda: _show(out, manifest))


def _show(out: Path, manifest: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    left = {f"left out: {why}": n for why, n in manifest["left_out"].items() if n}
    odd = left_out(manifest["runs_left_out"], "runs left out, for they hold what an export cannot")
    odd += left_out(manifest["questions_left_out"], "questions of the data set were left out of the rollout")
    made = {"backbone version": ", ".join(manifest["backbone_versions"]), "content hash": manifest["content_hash"][:16]}
    counts = {key.replace("_", " "): n for key, n in manifest["counts"].items()}
    rows = [*counts.items(), *left.items(), *made.items()]
    following = f'python -c "from datasets import load_dataset; print(load_dataset({str(out)!r}))"'
    return [table(("", ""), rows, title=f"export {out}"), *odd, Text(following, style="dim")]
