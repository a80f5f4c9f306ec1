"""`jade history`: the promotion log."""

from __future__ import annotations

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "history")
def history(cli: Cli) -> None:
    """Show who promoted which version when, on what evidence, and what was rolled back."""
    from jade_graph.cli.showing import of_history, shown
    from jade_graph.registry import Registry

    registry = Registry.of(cli.settings)
    entries = registry.history()
    result = {"champion": registry.current(), "promotions": [entry.as_dict() for entry in entries]}
    empty = "Nothing was promoted yet: jade promote VERSION."
    cli.out.result(result, lambda: shown(of_history(entries)) if entries else empty)
