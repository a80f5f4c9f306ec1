"""The root command: finds commands by name and turns every failure into a message and an exit code.

Invariant: listing the commands imports none of them, so a broken plug-in cannot break `jade --help`. No exception
leaves `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from jade_graph.cli import failures
from jade_graph.cli.classes import Group, Lazy
from jade_graph.cli.command import Cli, ConfigFile, Json, Overrides, Quiet, Verbose


class Builtin(NamedTuple):
    help: str
    panel: str
    module: str


def _builtin(name: str, help: str, panel: str) -> tuple[str, Builtin]:
    return name, Builtin(help, panel, f"jade_graph.cli.{name.replace('-', '_')}")


ASK, DATA, LEARN, SHIP, SEE, BACK, SET = (
    "Ask",
    "Data",
    "Learn",
    "Ship",
    "Serve and see",
    "Look back",
    "Set up",
)
"""Panels of `jade --help`, by what a person is about to do; a package's own commands may join them (`LISTED`)."""
PANELS = (ASK, DATA, LEARN, SHIP, SEE, BACK, SET)
BUILTINS: dict[str, Builtin] = dict(
    [
        _builtin("demo", "Answer questions of an invented world, learn, answer again.", ASK),
        _builtin("ask", "Answer a question and show how.", ASK),
        _builtin("search", "Search a corpus and show how each passage ranked.", ASK),
        _builtin("eval", "A method over a data set, with intervals; two compared.", ASK),
        _builtin("bench", "Run a benchmark and print its figures.", ASK),
        _builtin("index", "Make documents or a data set searchable.", DATA),
        _builtin("corpora", "List, show or remove corpora.", DATA),
        _builtin("split", "Parts of a data set that know no fact of each other.", DATA),
        _builtin("bounds", "What decomposition can gain on a data set.", DATA),
        _builtin("microworld", "The invented world: questions, best plans, users.", DATA),
        _builtin("rollout", "Run a data set many times, to learn from the runs.", LEARN),
        _builtin("export", "Write recorded runs as Parquet.", LEARN),
        _builtin("feedback", "What users clicked and used: events in, labels out.", LEARN),
        _builtin("judge", "Which passages of recorded runs helped, by a judge.", LEARN),
        _builtin("register", "Check a model and register it as a version.", SHIP),
        _builtin("versions", "List the registered versions.", SHIP),
        _builtin("diff", "What changed between two versions.", SHIP),
        _builtin("promote", "Make a version the champion, if it passes the gate.", SHIP),
        _builtin("rollback", "Back to the champion before this one.", SHIP),
        _builtin("history", "Who promoted what when, and why.", SHIP),
        _builtin("encoders", "Versions of the text encoder: register, judge, promote.", SHIP),
        _builtin("package-graph", "Backbone, corpus and settings as one MLflow model.", SHIP),
        _builtin("registry", "Mend the registry of a project that was moved.", SHIP),
        _builtin("serve", "Answer questions over HTTP, for OpenAI's clients.", SEE),
        _builtin("studio", "A local page: see, step through, fork, compare runs.", SEE),
        _builtin("runs", "List recorded runs, show one, or send them as traces.", BACK),
        _builtin("fork", "Take up a recorded run again from any of its actions.", BACK),
        _builtin("explain-credit", "Where the reward of each action of a run came from.", BACK),
        _builtin("look", "Which layers, heads and words made a decision.", BACK),
        _builtin("report", "Length and accuracy of compressed texts.", BACK),
        _builtin("doctor", "Check the installation and say what is missing.", SET),
        _builtin("config", "Show the settings and where each came from.", SET),
        _builtin("models", "Add, list, show or remove models that have a name.", SET),
        _builtin("backup", "The data folder as one file, taken while it is in use.", SET),
        _builtin("restore", "A data folder made of a backup.", SET),
        _builtin("new", "A role, loop, reward, retriever .. as a package of yours.", SET),
        _builtin("presets", "List the methods, or show one.", SET),
        _builtin("plugins", "List what packages bring: roles, presets, backbones ..", SET),
        _builtin("errors", "Explain an error code.", SET),
        _builtin("version", "Print the versions.", SET),
    ]
)


class Root(Group):
    """Built-in commands, then those of other packages. A built-in name cannot be taken."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, panel by panel in the order of `PANELS`."""
        added = [name for name in super().list_commands(ctx) if name not in BUILTINS]
        panels = {name: builtin.panel for name, builtin in BUILTINS.items()}
        panels |= {name: getattr(self.get_command(ctx, name), "rich_help_panel", None) or "" for name in added}
        return sorted(panels, key=lambda name: PANELS.index(panels[name]) if panels[name] in PANELS else len(PANELS))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return Lazy(cmd_name, *BUILTINS[cmd_name]) if cmd_name in BUILTINS else super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="jade",
    cls=Root,
    help="Agents whose planner writes a workflow per question, and that learn from their runs.",
    no_args_is_help=False,
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="First steps: [bold]jade demo[/], [bold]jade doctor[/].",
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", metavar="", help="Print the version and stop.")] = False,
    json: Json = False,
    config: ConfigFile = None,
    set_: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    ctx.obj = Cli().add(json, config, set_, quiet, verbose)
    if version:
        from jade_graph.settings import manifest

        ctx.obj.out.result({"version": manifest.version()}, lambda: f"jade {manifest.version()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line, print what goes wrong, and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(args=args, prog_name="jade", standalone_mode=False)
    except BaseException as error:
        return failures.report(error, args)
    return code if isinstance(code, int) else 0
