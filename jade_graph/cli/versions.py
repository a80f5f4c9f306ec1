"""`jade versions`: what is registered."""

from __future__ import annotations

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "versions")
def versions(cli: Cli) -> None:
    """List the registered versions of the backbone, the newest first, with aliases and parents."""
    from jade_graph.cli.showing import of_versions, shown
    from jade_graph.registry import Registry

    registry = Registry.of(cli.settings)
    found = registry.versions()
    result = {"registry": registry.place.shown, "versions": [version.as_dict() for version in found]}
    empty = "Nothing is registered yet: jade register FOLDER."
    cli.out.result(result, lambda: shown(of_versions(found)) if found else empty)
