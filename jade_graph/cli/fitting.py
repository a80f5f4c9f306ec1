"""Tables that fit where they are printed.

Invariant: no line is wider than the console, and the columns that say what a row is stand beside every other one.
Where all do not fit, the rest follow in further tables with the same labels; in a table of one line a row, the columns
that it can do without are left out and texts end in an ellipsis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

LEAST = 12
"""A column of text has at least so many characters, unless its longest has fewer."""
LABEL = 28
"""The same of a column that says what a row is."""
GAP = 3
"""Between two columns: a blank on either side, and the box's own."""


@dataclass(frozen=True)
class _Need:
    """Characters that a column must have, and those that it would take."""

    least: int
    most: int


class Fitted(Table):
    """A table in the house style whose widths are worked out anew wherever it is printed.

    Args:
        numeric: names of the columns that hold numbers.
        lines: one line a row.
        spare: names of columns that a table of lines can do without, the first to go first.
    """

    def __init__(
        self, title: Text | None, numeric: Iterable[str] = (), *, lines: bool = False, spare: Sequence[str] = ()
    ) -> None:
        super().__init__(
            title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
        )  # fmt: skip
        self._numeric, self._lines, self._spare = frozenset(numeric), lines, tuple(spare)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.columns:
            return
        needs = [self._need(console, options, column) for column in self.columns]
        parts = self._kept(needs, options.max_width) if self._lines else self._parted(needs, options.max_width)
        for number, part in enumerate(parts):
            widths = _shared([needs[i] for i in part], options.max_width)
            yield from self._of(part, widths, first=number == 0)._whole(console, options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        needs = [self._need(console, options, column) for column in self.columns]
        return Measurement(1, max(1, _total([n.most for n in needs]))).with_maximum(options.max_width)

    def _whole(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from super().__rich_console__(console, options)

    def _need(self, console: Console, options: ConsoleOptions, column: Column) -> _Need:
        wide = options.update(width=10_000)
        cells = [Measurement.get(console, wide, cell) for cell in column.cells]
        head = Measurement.get(console, wide, column.header)
        most = max([head.maximum, *(c.maximum for c in cells)], default=1)
        if str(column.header) in self._numeric:
            return _Need(max([head.minimum, *(c.maximum for c in cells)]), most)
        if self._lines:
            # A short column stays whole: ids, dates and states say nothing when they are cut.
            return _Need(most if most <= LEAST + 2 else LEAST, most)
        words = max([head.minimum, *(c.minimum for c in cells)], default=1)
        at_most = LABEL if column._index in self._labels() else LEAST
        return _Need(min(most, max(min(words, at_most), min(most, LEAST))), most)

    def _labels(self) -> list[int]:
        """Columns that say what a row is: the first; before numbers the first two."""
        numbers = [i for i, c in enumerate(self.columns) if str(c.header) in self._numeric]
        return list(range(max(1, min(2, numbers[0])))) if numbers else [0]

    def _parted(self, needs: Sequence[_Need], width: int) -> list[list[int]]:
        labels = self._labels()
        parts = [list(labels)]
        for i in range(len(labels), len(needs)):
            wanted = [*parts[-1], i]
            if parts[-1] != labels and _total([needs[j].least for j in wanted]) > width:
                parts.append(list(labels))
            parts[-1].append(i)
        return parts

    def _kept(self, needs: Sequence[_Need], width: int) -> list[list[int]]:
        kept = list(range(len(needs)))
        for name in self._spare:
            if _total([needs[i].least for i in kept]) <= width:
                break
            kept = [i for i in kept if str(self.columns[i].header) != name]
        return [kept]

    def _of(self, part: Sequence[int], widths: Sequence[int], *, first: bool) -> Fitted:
        """These columns alone, each so wide."""
        out = Fitted(self.title if first else None)  # type: ignore[arg-type]
        out.columns = [replace(self.columns[i], _index=at, width=widths[at]) for at, i in enumerate(part)]
        out.rows = self.rows
        return out


def _total(widths: Sequence[int]) -> int:
    """Characters of a line with columns of these widths."""
    return sum(widths) + GAP * len(widths) - 1


def _shared(needs: Sequence[_Need], width: int) -> list[int]:
    """A width for each column: what it must have, and the rest to those that want least, so that few are folded."""
    out = [need.least for need in needs]
    over = _total(out) - width
    while over > 0 and max(out) > 1:  # no room even for what must be: the widest gives way
        out[out.index(max(out))] -= 1
        over -= 1
    rest = width - _total(out)
    wanting = sorted((i for i, n in enumerate(needs) if n.most > out[i]), key=lambda i: needs[i].most - out[i])
    for number, i in enumerate(wanting):
        more = min(needs[i].most - out[i], max(0, rest) // (len(wanting) - number))
        out[i] += more
        rest -= more
    return out
