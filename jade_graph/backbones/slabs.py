"""Room for the keys and values of ragged rows: rows of like length lie together, so that little padding is read.

Invariant: a row's tokens fill the columns [0, length) of one slot of one slab, and every number in a slab is finite:
memory begins as zeros, and a row whose numbers were not finite is wiped as it leaves (`wipe`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jade_graph.backbones.memory import zeros

NOBODY = -1
_SMALLEST = 32


@dataclass(slots=True)
class Part:
    """The rows of one slab as one decoding step sees them: slots [0, count), those of leavers among them.

    `rows` (count,): whose slot it is, 0 where nobody's; `columns` (count, 1): where the next token goes; `seen`: one
    more than the largest of these. `level`: all columns are equal, so that there is nothing to mask.
    """

    slab: Slab
    count: int
    rows: Tensor
    columns: Tensor
    seen: int
    level: bool

    def mask(self) -> Tensor | None:
        """What is added to the scores (count, 1, 1, seen) of a query that looks back from its row's column."""
        if self.level:
            return None
        after = torch.arange(self.seen) > self.columns
        mask = torch.zeros(after.shape, dtype=self.slab.kv.dtype)
        return mask.masked_fill_(after, float("-inf"))[:, None, None]


class Slab:
    """(layers, 2, slots, heads, columns, width): `columns` tokens of room for each of some rows."""

    def __init__(self, layers: int, heads: int, columns: int, width: int, dtype: torch.dtype) -> None:
        self.columns = columns
        self.rows: list[int] = []
        self.kv = zeros((layers, 2, 2, heads, columns, width), dtype)

    def take(self, row: int) -> int:
        """A slot for `row`."""
        if NOBODY in self.rows:
            slot = self.rows.index(NOBODY)
            self.rows[slot] = row
            return slot
        self.rows.append(row)
        self.reserve(0)
        return len(self.rows) - 1

    def reserve(self, more: int) -> None:
        """Room for so many rows beside those at hand, so that it need not grow by and by."""
        room = self.kv.shape[2]
        wanted = len(self.rows) - self.rows.count(NOBODY) + more if more else len(self.rows)
        if wanted > room:
            layers, two, _, *rest = self.kv.shape
            grown = zeros((layers, two, max(wanted, 2 * room), *rest), self.kv.dtype)
            grown[:, :, :room] = self.kv
            self.kv = grown


class Slabs:
    """All slabs of one model, by columns: 32, 64, 128 and so on."""

    def __init__(self, layers: int, heads: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        self._shape = (layers, heads, width)
        self._dtype = dtype
        self._slabs: dict[int, Slab] = {}
        self._where: list[tuple[Slab, int]] = []
        self._lengths: list[int] = []
        # How far all rows have grown since their length was noted.
        self._grown = 0
        self._parts: list[Part] | None = None
        self._back: Tensor | None = None

    def __len__(self) -> int:
        return len(self._where)

    @property
    def nbytes(self) -> int:
        return sum(slab.kv.nbytes for slab in self._slabs.values())

    def clear(self) -> None:
        """Forget all rows and keep the memory."""
        self._where.clear()
        self._lengths.clear()
        self._parts = None
        for slab in self._slabs.values():
            slab.rows.clear()

    def add(self, lengths: Sequence[int]) -> None:
        """Rows more, behind the others, each with room for its prompt of so many tokens and one to come."""
        for columns, count in Counter(map(_columns, lengths)).items():
            self._slab(columns).reserve(count)
        for length in lengths:
            slab = self._slab(_columns(length))
            self._where.append((slab, slab.take(len(self._where))))
            self._lengths.append(length - self._grown)
        self._parts = None

    def _slab(self, columns: int) -> Slab:
        if columns not in self._slabs:
            layers, heads, width = self._shape
            self._slabs[columns] = Slab(layers, heads, columns, width, self._dtype)
        return self._slabs[columns]

    def room(self, row: int) -> Tensor:
        """Where the row lies, (layers, 2, heads, columns, width): a view until rows are added."""
        slab, slot = self._where[row]
        return slab.kv[:, :, slot]

    def wipe(self, row: int) -> None:
        self.room(row).zero_()

    def drop(self, holes: Sequence[int], movers: Sequence[int], count: int) -> None:
        """Rows `movers` take the numbers `holes`, the first `count` stay. See `forward.Session.drop`."""
        moving = set(movers)
        for row in [*holes, *(row for row in range(count, len(self._where)) if row not in moving)]:
            slab, slot = self._where[row]
            slab.rows[slot] = NOBODY
        for hole, mover in zip(holes, movers, strict=True):
            slab, slot = self._where[mover]
            slab.rows[slot] = hole
            self._where[hole], self._lengths[hole] = self._where[mover], self._lengths[mover]
        del self._where[count:], self._lengths[count:]
        self._parts = None

    def parts(self) -> tuple[list[Part], Tensor | None]:
        """The slabs in use, and where each row stands among all their slots; None: rows are slots, in order.

        Rows that have filled their slot are moved to a longer one first.
        """
        if self._parts is not None and any(part.seen > part.slab.columns for part in self._parts):
            self._parts = None
        if self._parts is None:
            self._arrange()
        assert self._parts is not None
        return self._parts, self._back

    def _arrange(self) -> None:
        lengths = [length + self._grown for length in self._lengths]
        for row, length in enumerate(lengths):
            slab, slot = self._where[row]
            if length >= slab.columns:
                longer = self._slab(_columns(length))
                other = longer.take(row)
                self._where[row] = longer, other
                longer.kv[:, :, other, :, :length] = slab.kv[:, :, slot, :, :length]
                slab.rows[slot] = NOBODY
        self._parts = []
        back = [0] * len(lengths)
        base = 0
        for slab in self._slabs.values():
            self._close_up(slab, lengths)
            if slab.rows:
                columns = [0 if row == NOBODY else lengths[row] for row in slab.rows]
                for slot, row in enumerate(slab.rows):
                    if row != NOBODY:
                        back[row] = base + slot
                self._parts.append(
                    Part(
                        slab,
                        len(slab.rows),
                        torch.tensor([max(row, 0) for row in slab.rows]),
                        torch.tensor(columns).unsqueeze(1),
                        max(columns) + 1,
                        min(columns) == max(columns),
                    )
                )
                base += len(slab.rows)
        in_order = len(self._parts) == 1 and back == list(range(base))
        self._back = None if in_order else torch.tensor(back)

    def _close_up(self, slab: Slab, lengths: Sequence[int]) -> None:
        """Give up empty slots at the end, and fill others from there while more than a quarter are empty.

        An empty slot costs a look at its columns in every step, to fill it a copy: most are soon taken anyway.
        """
        while True:
            while slab.rows and slab.rows[-1] == NOBODY:
                slab.rows.pop()
            if slab.rows.count(NOBODY) * 4 <= len(slab.rows):
                return
            hole, row = slab.rows.index(NOBODY), slab.rows[-1]
            slab.kv[:, :, hole, :, : lengths[row]] = slab.kv[:, :, len(slab.rows) - 1, :, : lengths[row]]
            slab.rows[hole], slab.rows[-1] = row, NOBODY
            self._where[row] = slab, hole

    def grow(self) -> None:
        """Every row has got a token."""
        self._grown += 1
        for part in self._parts or ():
            part.columns += 1
            part.seen += 1


def _columns(length: int) -> int:
    """Of the slab for a row of so many tokens and one more."""
    return max(_SMALLEST, 1 << length.bit_length())
