"""`jade errors`: what an error code means and what to do, from the reference page that the package carries."""

from __future__ import annotations

from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app)
def errors(
    cli: Cli, code: Annotated[str | None, typer.Argument(help="A code such as CONFIG_UNKNOWN_KEY; none: all.")] = None
) -> None:
    """Explain an error code, or list all."""
    from jade_graph.cli import catalogue
    from jade_graph.cli.console import table
    from jade_graph.errors import unknown

    known = catalogue.read()
    if code is None:
        rows = [(e.code, e.exit_code, e.meaning) for e in known.values()]
        value = {"errors": [{"code": e.code, "exit_code": e.exit_code, "meaning": e.meaning} for e in known.values()]}
        cli.out.result(value, lambda: table(("code", "exit", "meaning"), rows, right="exit"))
        return
    name = code.strip().strip("[]").upper()
    if name not in known:
        raise unknown("error code", code, known, code="UNKNOWN_ERROR_CODE")
    entry = known[name]
    explained = {"code": entry.code, "exit_code": entry.exit_code, "meaning": entry.meaning, "text": entry.text}

    def show() -> list[object]:
        from rich.markdown import Markdown
        from rich.padding import Padding
        from rich.text import Text

        head = Text.assemble((entry.code, "bold"), (f"  exit code {entry.exit_code}", "dim"))
        return [head, Padding(Markdown(entry.text), (0, 0, 0, 2))]

    cli.out.result(explained, show)
