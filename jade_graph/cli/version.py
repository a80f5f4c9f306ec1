"""`jade version`: this package, Python and the packages beneath."""

from __future__ import annotations

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app)
def version(cli: Cli) -> None:
    """Print the versions of this package, of Python and of the packages that it stands on."""
    from jade_graph.cli.console import table
    from jade_graph.settings import manifest

    facts = manifest.manifest()
    value = {
        key: facts[key] for key in ("jade", "commit", "modified", "python", "platform", "packages") if key in facts
    }
    rows = [("jade", facts["jade"]), ("python", facts["python"]), *facts["packages"].items()]
    cli.out.result(value, lambda: table(("package", "version"), rows))
