"""`jade rollback`: back to the champion before this one."""

from __future__ import annotations

from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "rollback")
def rollback(
    cli: Cli,
    reason: Annotated[str, typer.Option(help="Why; goes to the log.")] = "",
) -> None:
    """Make the champion before this one the champion again. At once, without evaluation; logged.

    Again: further back. Running graphs that follow the alias switch within seconds.
    """
    from jade_graph.registry import Registry

    done = Registry.of(cli.settings).rollback(reason=reason)
    told = f"Version {done.to_version} is the champion again, instead of version {done.from_version}."
    cli.out.result(done.as_dict(), lambda: told)
