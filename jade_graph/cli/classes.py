"""The command classes: tidy help, commands imported when called, groups that other packages extend.

Invariant: listing commands imports none of them. An entry point "NAME" of the group "jade.commands" is a command of
`jade`, one named "GROUP.NAME" a command of the group `jade GROUP`; names of built-in commands cannot be taken.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from jade_graph import plugins
from jade_graph.errors import PluginError, unknown

GROUP = "jade.commands"


class Tidy:
    """For commands and groups: help whose names are never cut; the flag --help shows no value."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        from jade_graph.cli import helping

        helping.show(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.metavar = ""
            option.rich_help_panel = "Common options"
        return option


class Command(Tidy, TyperCommand):
    pass


class Lazy(Command):
    """A name and a line of help; the real command is imported when it is called.

    Args:
        module: where the built-in command's `app` is; None: the entry point `key`.
    """

    def __init__(self, name: str, help: str, panel: str | None, module: str | None = None, key: str = "") -> None:
        super().__init__(name, help=help, rich_help_panel=panel)
        self._module, self._key = module, key or name

    def load(self) -> Any:
        app = import_module(self._module).app if self._module else plugins.load(GROUP, self._key)
        if not isinstance(app, typer.Typer):
            raise PluginError(
                f"the command {self._key!r} is a {type(app).__name__}, not a typer.Typer.",
                code="PLUGIN_COMMAND",
                hint="point the entry point at a typer.Typer",
            )
        app._add_completion = False
        command = get_command(app)
        command.name = self.name
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.load().make_context(info_name, args, parent, **extra)


class Group(Tidy, TyperGroup):
    """A group of commands; `extends` is its own name, with which packages add commands to it."""

    extends: ClassVar[str] = ""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in self._added() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        key = self._added().get(cmd_name)
        if own is not None or key is None:
            return own
        panel, told = _described(key)
        return Lazy(cmd_name, told, None if self.extends else panel or "More commands", key=key)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = f"{ctx.command_path} --help" if ctx.parent else ""
            raise unknown("command", name, self.list_commands(ctx), code="UNKNOWN_COMMAND", hint=hint)
        return super().resolve_command(ctx, args)

    def _added(self) -> dict[str, str]:
        """Name to entry point, for the commands of other packages that belong here."""
        prefix = f"{self.extends}." if self.extends else ""
        found = (name for name in plugins.names(GROUP) if name.startswith(prefix))
        return {name.removeprefix(prefix): name for name in found if name.count(".") == prefix.count(".")}


def extended(name: str) -> type[Group]:
    """The class of the group `jade NAME`."""
    return type("ExtendedGroup", (Group,), {"extends": name})


def _described(key: str) -> tuple[str, str]:
    """Panel and one line of help of a command that another package brings, read without importing it."""
    from jade_graph.cli.packages import entries, listed, owner

    found = entries(GROUP)[key][-1]
    panel, told = listed(found.module, key)
    return panel, told or f"From the package {owner(found)}."
