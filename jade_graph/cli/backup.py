"""`jade backup`: the data folder as one file, taken while it is in use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app)
def backup(
    cli: Cli,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write; it must not be there.")],
    models: Annotated[bool, typer.Option("--models", help="Models that have a name too (fetched again else).")] = False,
) -> None:
    """Write runs, corpora, versions and models of the data folder to one file, while they are in use.

    Databases are copied by SQLite, a corpus while nobody writes in it; a manifest has the hash of every file. What is
    not in it (PostgreSQL, a registry elsewhere) is named. jade restore makes a folder of it.
    """
    from jade_graph.backup import back_up

    with cli.out.progress("backing up", "files") as tick:
        done = back_up(cli.settings, out, models=models, tick=tick)
    for each in done.left_out:
        cli.out.warn(f"not in it: {each}")

    def show() -> list[Any]:
        return [
            f"{done.path}: {done.files} files, {done.bytes / 2**20:,.1f} MiB. jade restore {done.path} --into FOLDER"
        ]

    cli.out.result(asdict(done), show)
