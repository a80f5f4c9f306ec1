"""`jade restore`: a data folder made of a backup."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app)
def restore(
    cli: Cli,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What jade backup wrote.")],
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="The data folder to make; nothing is overwritten.")],
) -> None:
    """Make a data folder of a backup, once every file's hash was compared."""
    from jade_graph.backup import restore as made

    done = made(file, into)
    for each in done.left_out:
        cli.out.warn(f"not in it: {each}")
    moved = f"jade registry relocate --set data_dir={into}" if (into / "mlflow.db").exists() else ""
    when = datetime.fromtimestamp(done.created_at).astimezone().strftime("%Y-%m-%d %H:%M")
    told = f"{into}: {done.files} files of {when}, each as it was. Use it: --set data_dir={into}"
    cli.out.result(asdict(done) | {"next": moved}, lambda: [told, *([f"Next: {moved}"] if moved else [])])
