"""What every command shares: the common options and the `Cli` object that carries them.

Invariant: an option means the same before and after the command's name. Settings are read once, on first use, so that
a command which needs none works with a broken settings file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from jade_graph.cli.classes import Command, extended
from jade_graph.cli.console import Output
from jade_graph.errors import JadeError
from jade_graph.settings.config import Config, load_config
from jade_graph.settings.fields import LogSettings, Settings

if TYPE_CHECKING:
    from jade_graph.data import Dataset

PANEL = "Common options"
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.", rich_help_panel=PANEL)]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file instead of jade.toml (here or above).", rich_help_panel=PANEL
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.", rich_help_panel=PANEL),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No progress, no log.", rich_help_panel=PANEL)]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", metavar="", help="Logs, and tracebacks of errors.", rich_help_panel=PANEL)
]


@dataclass
class Cli:
    """What a command gets: where to print, and the settings."""

    out: Output = field(default_factory=Output)
    config_file: Path | None = None
    overrides: list[str] = field(default_factory=list)

    @cached_property
    def config(self) -> Config:
        return load_config(config=self.config_file, overrides=self.overrides)

    @property
    def settings(self) -> Settings:
        return self.config.settings

    def put(self, name: str, value: Any) -> None:
        """An option of the command itself that stands for a setting: the same as `--set NAME=VALUE`."""
        if value is not None:
            self.overrides.append(f"{name}={value}")
            self.__dict__.pop("config", None)

    def noted(self, *datasets: Dataset) -> None:
        """Say what of data sets was left out: figures are of the rest."""
        for dataset in datasets:
            for note in dataset.notes:
                self.out.warn(f"{dataset.name}: {note}")

    def add(
        self,
        json: bool = False,
        config: Path | None = None,
        set_: list[str] | None = None,
        quiet: bool = False,
        verbose: bool = False,
    ) -> Cli:
        """This object with the common options of one place (before or after the command's name) put on top."""
        out = Output(self.out.json or json, self.out.quiet or quiet, self.out.verbose or verbose)
        return Cli(out, config or self.config_file, [*self.overrides, *(set_ or [])])


def _common(
    json: Json = False,
    config: ConfigFile = None,
    set_: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Carries the common options' declarations."""


_COMMON = tuple(p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(_common, eval_str=True).parameters.values())
_NAMES = tuple(p.name for p in _COMMON)


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `f(cli, ...)` as a command of `app`, with the common options added after its own.

    `options` go to `typer.Typer.command`. Third-party commands (entry-point group "jade.commands") use this too.
    """

    def register(f: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(f, eval_str=True)
        _, *own = signature.parameters.values()

        def run(ctx: typer.Context, **values: Any) -> None:
            common = {key: values.pop(key) for key in _NAMES}
            base = ctx.obj if isinstance(ctx.obj, Cli) else Cli()
            cli = base.add(**common)
            if cli.out.verbose:
                _logs(cli)
            f(cli, **values)

        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        own = [_declared(p) for p in own]
        parameters = [context, *own, *_COMMON]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__, run.__module__ = f.__name__, f.__doc__, f.__module__
        app.command(name, cls=Command, **options)(run)
        return f

    return register


def group(name: str, help: str) -> typer.Typer:
    """An app of several commands, `jade NAME`; other packages can add to it."""
    app = typer.Typer(cls=extended(name), help=help, no_args_is_help=True, add_completion=False)
    # A callback keeps typer from turning a group of one command into that command.
    app.callback(help=help)(_nothing)
    return app


def single() -> typer.Typer:
    """An app that is one command."""
    return typer.Typer(add_completion=False)


def _declared(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter for typer; a flag's help shows no value."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if get_args(parameter.annotation)[0] is bool and isinstance(info, OptionInfo) and info.metavar is None:
            info.metavar = ""
    return parameter.replace(kind=parameter.KEYWORD_ONLY)


def _nothing() -> None:
    """A group does nothing by itself."""


def _logs(cli: Cli) -> None:
    """The log of --verbose, in the settings' format; of broken settings the command itself will tell."""
    from jade_graph.cli import logs

    try:
        chosen = cli.settings.log
    except JadeError:
        chosen = LogSettings()
    logs.begin(chosen, everything=True)
