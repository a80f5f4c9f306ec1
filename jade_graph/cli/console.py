"""What the command line prints, and where.

Invariant: standard output holds the result and nothing else (with --json exactly one JSON object); progress, logs and
errors go to standard error. Colour and animation appear only on a terminal, and no text from outside acts on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from jade_graph.settings.plain import json_text, text, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Piped output has no width of its own: wide enough that tables are not cut.
PIPE_WIDTH = 140


class Ticker(Protocol):
    """Reports progress: `done` of `total` (None: unknown) steps of what `label` names."""

    def __call__(self, done: int, total: int | None = None, label: str | None = None) -> None: ...


@dataclass
class Output:
    """The two streams of one command."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @cached_property
    def stdout(self) -> Console:
        return _console(stderr=False)

    @cached_property
    def stderr(self) -> Console:
        return _console(stderr=True)

    def result(self, value: Mapping[Any, Any], show: Callable[[], Any]) -> None:
        """Print the result: `value` with --json, else what `show` makes: a renderable or several."""
        if self.json:
            print_json(value)
            return
        shown = show()
        for item in shown if isinstance(shown, list | tuple) else [shown]:
            self.stdout.print(item, markup=False, emoji=False)  # brackets in an answer are brackets

    def log(self, text: str) -> None:
        """A line about what goes on; not with --quiet."""
        if not self.quiet:
            self.stderr.print(text, style="dim", highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """A line that the user should see even with --quiet."""
        self.stderr.print(f"[yellow]note[/] {_plain(text)}", highlight=False)

    @contextmanager
    def progress(self, label: str, unit: str = "steps") -> Iterator[Ticker]:
        """A bar on a terminal; elsewhere a line at the start and every tenth of the way.

        Args:
            unit: what is counted, in the plural; "%": only the share is worth telling.
        """
        if self.quiet:
            yield _silent
        elif self.stderr.is_terminal:
            with _bar(self.stderr, label, unit) as tick:
                yield tick
        else:
            yield _Lines(self.log, label, unit)


def print_json(value: Mapping[Any, Any]) -> None:
    """One JSON object on standard output. A number that JSON cannot hold becomes null, never `NaN`."""
    sys.stdout.write(json_text(value, indent=2) + "\n")
    sys.stdout.flush()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    right: str = "",
    lines: bool = False,
    spare: str = "",
) -> Table:
    """A table in the house style, fitted to where it is printed. Columns named in `right`, between blanks, are numbers.

    Cells are plain text unless they are renderables: brackets in data are no markup.

    Args:
        lines: one line a row; texts that are too long end in an ellipsis.
        spare: names of columns that a table of lines leaves out where it is narrow, the first to go first.
    """
    from rich.text import Text

    from jade_graph.cli.fitting import Fitted

    numeric = right.split()
    out = Fitted(Text(visible(title)) if title else None, numeric, lines=lines, spare=spare.split())
    for name in columns:
        out.add_column(
            Text(visible(name)),
            justify="right" if name in numeric else "left",
            overflow="ellipsis" if lines else "fold",
            no_wrap=lines,
        )
    for row in rows:
        made = (cell if hasattr(cell, "__rich_console__") else Text(text(cell)) for cell in row)
        out.add_row(*(_line(cell) if lines else cell for cell in made))
    return out


def _line(cell: Any) -> Any:
    """Text of several lines as one."""
    from rich.text import Text

    return Text(" ".join(cell.plain.split()), cell.style) if isinstance(cell, Text) else cell


def _plain(value: str) -> str:
    from rich.markup import escape

    return escape(value)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console
    from rich.segment import Segment

    class Quitting(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            """Everything that is printed comes by here: text is shown and never acts, only rich's own codes do."""
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            """Rich would exit with code 1 here: let the command line end as it does for every broken pipe."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Quitting(stderr=stderr, width=width, soft_wrap=False, highlight=False)


def _silent(done: int, total: int | None = None, label: str | None = None) -> None:
    """The ticker of --quiet."""


class _Lines:
    """A ticker for logs: a line at the start of each label and one per tenth."""

    def __init__(self, log: Callable[[str], None], label: str, unit: str) -> None:
        self._log, self._label, self._unit, self._tenth = log, label, unit, -1
        log(f"{label} ...")

    def __call__(self, done: int, total: int | None = None, label: str | None = None) -> None:
        if label is not None and label != self._label:
            self._label, self._tenth = label, -1
        tenth = 10 * done // total if total else -1
        if total and tenth > self._tenth and done:
            self._tenth = tenth
            self._log(f"{self._label}: {_counted(done, total, self._unit, self._label)}")


def _counted(done: int, total: int, unit: str, label: str) -> str:
    """A phase that names the unit, or is one piece of work, has a count alone."""
    if unit == "%":
        return f"{100 * done // total} %"
    count = f"{done:,} of {total:,}"
    return count if total == 1 or unit in label.split() else f"{count} {unit}"


@contextmanager
def _bar(console: Console, label: str, unit: str) -> Iterator[Ticker]:
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(
                "" if not task.total else _counted(int(task.completed), int(task.total), unit, task.description)
            )

    class Rest(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), Count(), Rest())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def tick(done: int, total: int | None = None, label: str | None = None) -> None:
            changes: dict[str, Any] = {"completed": done}
            if total is not None:
                changes["total"] = total
            if label is not None:
                changes["description"] = label
            progress.update(task, **changes)

        yield tick
