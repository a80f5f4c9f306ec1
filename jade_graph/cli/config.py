"""`jade config`: the settings, and where each value came from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group
from jade_graph.settings.config import KEYS, mask

app = group("config", "Show the settings and where each came from.")


@command(app)
def show(
    cli: Cli,
    key: Annotated[str | None, typer.Argument(help="One setting, or the beginning of several, e.g. limits.")] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that are not at their default.")] = False,
) -> None:
    """Show each setting's value, where it came from and what it means.

    Later sources win: defaults, ~/.config/jade/config.toml, jade.toml here or above (or --config), JADE_* variables
    (JADE_LIMITS__DEADLINE_S for limits.deadline_s), --set.
    """
    from jade_graph.cli.console import table
    from jade_graph.errors import unknown

    rows = cli.config.rows()
    if key is not None:
        rows = [r for r in rows if r["key"] == key or r["key"].startswith(key.rstrip(".") + ".")]
        if not rows:
            raise unknown("setting", key, KEYS, code="CONFIG_UNKNOWN_KEY")
    if changed:
        rows = [r for r in rows if r["origin"] != "default"]
    value = {
        "settings": {r["key"]: {"value": r["value"], "origin": r["origin"]} for r in rows},
        "files": [str(path) for path in cli.config.files],
    }
    cli.out.result(
        value,
        lambda: table(
            ("setting", "value", "from", "meaning"),
            [(r["key"], _written(r["value"]), _origin(r["origin"]), r["meaning"]) for r in rows],
        ),
    )


@command(app)
def get(cli: Cli, key: Annotated[str, typer.Argument(help="A setting, e.g. limits.deadline_s.")]) -> None:
    """Print one setting's value."""
    value = mask(key, cli.config.value(key))
    cli.out.result({"key": key, "value": value, "origin": cli.config.origin(key)}, lambda: _written(value))


def _written(value: Any) -> str:
    """As --set takes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _origin(origin: str) -> Any:
    from rich.text import Text

    return Text(origin, style="dim" if origin == "default" else "green")
