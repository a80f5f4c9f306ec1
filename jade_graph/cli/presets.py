"""`jade presets`: the methods that the one engine runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("presets", "List the methods, or show one.")


@command(app, "list")
def list_(cli: Cli) -> None:
    """List the presets: methods as configurations of the one engine."""
    from jade_graph import plugins
    from jade_graph.cli.console import table

    presets = [plugins.load("jade.presets", name) for name in plugins.names("jade.presets")]
    rows = [(p.name, p.plan or "by the planner", _trained(p), p.title) for p in presets]
    cli.out.result(
        {"presets": [_plain(p) for p in presets]}, lambda: table(("preset", "workflow", "trained", "method"), rows)
    )


@command(app)
def show(cli: Cli, name: Annotated[str, typer.Argument(help="A preset; jade presets list.")]) -> None:
    """Show every field of one preset."""
    from jade_graph import plugins
    from jade_graph.cli.console import table

    preset = _plain(plugins.load("jade.presets", name))
    cli.out.result(preset, lambda: table(("field", "value"), [(k, _shown(v)) for k, v in preset.items()], title=name))


def _trained(preset: Any) -> str:
    if preset.trainable is None:
        return "all roles"
    return ", ".join(sorted(preset.trainable)) or "nothing"


def _plain(preset: Any) -> dict[str, Any]:
    from jade_graph.settings.plain import jsonable

    return dict(jsonable(preset))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "-" if value in (None, "") else str(value)
