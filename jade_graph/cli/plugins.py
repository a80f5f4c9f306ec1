"""`jade plugins`: what the installed packages bring."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("plugins", "List roles, presets, backbones and what else packages bring.")


@command(app, "list")
def list_(
    cli: Cli,
    kind: Annotated[str | None, typer.Argument(help="One kind: roles, presets, backbones, commands ..")] = None,
    load: Annotated[bool, typer.Option(help="Import each part to see whether it loads (seconds).")] = True,
) -> None:
    """List every part that installed packages provide, the package it comes from, and its error if it does not load."""
    from jade_graph.cli.console import table

    rows = [row for name in _groups(kind) for row in _rows(cli, name, load)]
    broken = [row for row in rows if row["error"]]

    def show() -> list[Any]:
        from rich.text import Text

        state = {True: Text("ok", style="green"), False: Text("broken", style="bold red"), None: Text("-", style="dim")}
        out: list[Any] = [
            table(
                ("kind", "name", "loads", "package", "where"),
                [(r["kind"], r["name"], state[r["loads"]], r["package"], r["value"]) for r in rows],
            )
        ]
        out += [Text(f"{r['kind']} {r['name']}: {r['error']}", style="red") for r in broken]
        return out

    cli.out.result({"plugins": rows}, show)
    if broken:
        raise typer.Exit(7)


def _groups(kind: str | None) -> list[str]:
    from jade_graph.errors import unknown
    from jade_graph.plugins import GROUPS

    groups = {name.removeprefix("jade."): name for name in GROUPS}
    if kind is None:
        return list(groups.values())
    if kind not in groups:
        raise unknown("kind of plug-in", kind, groups, code="UNKNOWN_PLUGIN_KIND")
    return [groups[kind]]


def _rows(cli: Cli, group_name: str, load: bool) -> list[dict[str, Any]]:
    from jade_graph.cli.packages import entries, owner

    out = []
    for name, found in entries(group_name).items():
        used = found[-1]
        error = _failure(used) if load else None
        if len(found) > 1 and not error:
            error = f"brought by {', '.join(map(owner, found))}: uninstall all but one"
        out.append(
            {
                "kind": group_name.removeprefix("jade."),
                "name": name,
                "package": owner(used),
                "value": used.value,
                "loads": None if not load else error is None,
                "error": error,
            }
        )
    if load and out:
        cli.out.log(f"loaded {group_name}: {len(out)}")
    return out


def _failure(entry: Any) -> str | None:
    """What importing a part raises, in one line. Anything may go wrong in other people's modules."""
    try:
        entry.load()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
