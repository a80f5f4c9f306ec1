"""An answer on the terminal while it is written.

Invariant: it is written to standard error, on a terminal alone, and is gone when the run has ended: what is printed
then is the result, the same as without a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jade_graph.settings.plain import visible

if TYPE_CHECKING:
    from jade_graph.cli.console import Output
    from jade_graph.types import Event


@contextmanager
def living(out: Output) -> Iterator[dict[str, Any]]:
    """Arguments of `JadeGraph.run` that show its answer while it is written; none where nobody would see it."""
    if out.quiet or out.json or not out.stderr.is_terminal:
        yield {}
        return
    from rich.live import Live
    from rich.text import Text

    said = ""
    with Live(Text(), console=out.stderr, transient=True, auto_refresh=False) as live:

        def hear(event: Event) -> None:
            nonlocal said
            if event.kind == "token":
                said += event.text
            elif event.kind == "retract":
                said = ""
            else:
                return
            live.update(Text(visible(said), style="dim"), refresh=True)

        yield {"on_event": hear, "tokens": True}
