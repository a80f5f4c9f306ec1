"""`jade registry relocate`: addresses of a registry that lies in another folder than it did."""

from __future__ import annotations

from jade_graph.cli.command import Cli, command, group

app = group("registry", "Mend the registry of a project that was moved.")


@command(app, "relocate")
def relocate(cli: Cli) -> None:
    """Let the registry's database name the place where its files are now."""
    from jade_graph.registry import Registry

    registry = Registry.of(cli.settings)
    changed = registry.relocate()
    result = {"registry": registry.place.shown, "changed": changed}
    told = f"{changed} addresses name {registry.place.artifacts} now." if changed else "Nothing was moved."
    cli.out.result(result, lambda: told)
