"""One place where errors become words and exit codes.

Invariant: every failure has a stable code, says what to do next, and ends with a documented exit code; under --json it
is one JSON object on standard output. Tracebacks are for --verbose.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from jade_graph.cli.console import Output, print_json
from jade_graph.errors import JadeError, UsageError, storage_error
from jade_graph.settings.plain import visible

OK, INTERNAL, INTERRUPTED, BROKEN_PIPE = 0, 70, 130, 141
DOCS = "docs/reference/errors.md"
# typer carries its own copy of click in some versions and uses the package in others: ask it for the base class.
_ClickError = typer.BadParameter.__mro__[2]


class InternalError(JadeError):
    """A bug: something that no typed error describes."""

    code = "INTERNAL"
    exit_code = INTERNAL


def report(error: BaseException, args: Sequence[str]) -> int:
    """Print an error as the command line `args` asked for, and return its exit code."""
    if isinstance(error, BrokenPipeError):
        # Whoever read the output has left: nothing more can be said, and the flush at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, typer.Exit):
        return error.exit_code
    options = args[: args.index("--")] if "--" in args else args
    known = _typed(error)
    out = Output(json="--json" in options)
    if {"--verbose", "-v"} & set(options):
        sys.stderr.write(visible("".join(traceback.format_exception(error))))
    if out.json:
        print_json({"error": as_dict(known)})
    else:
        show(known, out)
    return known.exit_code


def as_dict(error: JadeError) -> dict[str, object]:
    return error.as_dict() | {"docs": f"{DOCS}#{error.error_code.lower()}", "exit_code": error.exit_code}


def show(error: JadeError, out: Output) -> None:
    """The error for a person, on standard error."""
    from rich.table import Table
    from rich.text import Text

    out.stderr.print(Text.assemble(("error ", "bold red"), (error.error_code, "bold")))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("  what", Text(error.message))
    if error.known:
        grid.add_row("  known", Text(", ".join(error.known)))
    if error.hint:
        grid.add_row("  try", Text(error.hint, style="bold"))
    grid.add_row("  more", Text(f"jade errors {error.error_code}", style="dim"))
    out.stderr.print(grid)


def _typed(error: BaseException) -> JadeError:
    if isinstance(error, JadeError):
        return error
    if isinstance(error, _ClickError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "jade"
        message = error.format_message() or "that is no complete command."  # type: ignore[attr-defined]
        return UsageError(message, hint=f"{path} --help")
    if isinstance(error, OSError) and (stored := storage_error(error)) is not None:
        return stored
    return InternalError(
        f"unexpected {type(error).__name__}: {error}",
        hint="again with --verbose for the traceback; report it with the output of jade doctor",
    )
