"""How `--help` looks: panels of options and commands, of which no name is cut at any width.

Invariant: a name stands whole on one line, with what it takes where there is room; its meaning is folded beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 100
"""Longer lines are hard to read."""
OPTIONS, ARGUMENTS, COMMANDS = "Options", "Arguments", "Commands"
COMMON = "Common options"
TAKES = {"<str>": "TEXT", "<path>": "PATH", "<int>": "N", "<int range>": "N", "<float>": "X", "<float range>": "X"}
"""How types are written: what may be given follows in brackets."""


def show(command: Any, ctx: Any) -> None:
    """Print the help of a command or group to standard output."""
    from rich.padding import Padding
    from rich.text import Text

    from jade_graph.cli.console import Output

    console = Output().stdout
    if console.width > WIDEST:
        console.width = WIDEST
    console.print(Padding(Text(command.get_usage(ctx), style="bold"), (1, 1)))
    for paragraph in (command.help or "").split("\f")[0].strip().split("\n\n"):
        if paragraph:
            console.print(Padding(Text(" ".join(paragraph.split())), (0, 1, 1, 1)))
    for name, rows in _sorted([*_parameters(command, ctx), *_commands(command, ctx)]):
        _panel(console, name, rows)
    if command.epilog:
        console.print(Padding(Text.from_markup(command.epilog), (1, 1)))


def _parameters(command: Any, ctx: Any) -> Iterable[tuple[str, str, str]]:
    """Panel, name and meaning of each parameter."""
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        own = getattr(parameter, "rich_help_panel", None)
        argument = parameter.param_type_name == "argument"
        name = record[0].strip()
        for kind, short in TAKES.items():
            name = name.replace(kind, "" if argument else short).strip()
        yield own or (ARGUMENTS if argument else OPTIONS), name, record[1]


def _commands(command: Any, ctx: Any) -> Iterable[tuple[str, str, str]]:
    for name in command.list_commands(ctx) if hasattr(command, "list_commands") else ():
        each = command.get_command(ctx, name)
        if each is not None and not each.hidden:
            told = (each.short_help or each.help or "").split("\n\n")[0]
            yield getattr(each, "rich_help_panel", None) or COMMANDS, name, " ".join(told.split())


def _grouped(rows: Iterable[tuple[str, str, str]]) -> dict[str, list[tuple[str, str]]]:
    out: dict[str, list[tuple[str, str]]] = {}
    for panel, name, meaning in rows:
        out.setdefault(panel, []).append((name, meaning))
    return out


def _sorted(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Arguments first, then what has no panel, then the panels as they come; what every command takes is last."""
    order = {ARGUMENTS: 0, OPTIONS: 1, COMMON: 3}
    return sorted(_grouped(rows).items(), key=lambda item: order.get(item[0], 2))


def _panel(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    inside = console.width - 4
    widest = max(len(name) for name, _ in rows)
    beside = min(widest, max(24, inside * 2 // 5))  # a very long name has its meaning in the next line
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, width=beside, style="cyan")
    grid.add_column(overflow="fold", width=inside - beside - 2)
    for name, meaning in rows:
        if len(name) <= beside:
            grid.add_row(Text(name), Text(meaning))
            continue
        head, _, takes = name.partition(" ")
        if len(head) > beside:
            head, takes = name, ""
        grid.add_row(Text(head), Text(f"{takes}  {meaning}".strip()))
    console.print(Panel(grid, title=title, title_align="left", border_style="dim", width=console.width))


__all__ = ["ARGUMENTS", "COMMANDS", "COMMON", "OPTIONS", "show"]
