"""Rows in slabs against a plain list of what each row holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.backbones.slabs import Slabs


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_keeps_its_tokens(data: st.DataObject) -> None:
    slabs = Slabs(1, 1, 1)
    rows: list[list[float]] = []
    fresh = iter(range(1, 10**6))
    for _ in range(data.draw(st.integers(1, 12))):
        for length in data.draw(st.lists(st.integers(1, 90), max_size=4)):
            rows.append([float(next(fresh)) for _ in range(length)])
            slabs.add([length])
            slabs.room(len(rows) - 1)[0, 0, 0, :length, 0] = torch.tensor(rows[-1])
        if not rows:
            continue
        for _ in range(data.draw(st.integers(0, 3))):
            step(slabs, rows, [float(next(fresh)) for _ in rows])
        stay = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        count = sum(stay)
        holes = [row for row in range(count) if not stay[row]]
        movers = [row for row in range(count, len(rows)) if stay[row]]
        slabs.drop(holes, movers, count)
        for hole, mover in zip(holes, movers, strict=True):
            rows[hole] = rows[mover]
        rows = rows[:count]
    assert len(slabs) == len(rows)
    slabs.clear()
    assert len(slabs) == 0
    assert slabs.parts()[0] == []


def step(slabs: Slabs, rows: list[list[float]], new: list[float]) -> None:
    """Write a token per row as a session does, and look at all that a row could see."""
    parts, back = slabs.parts()
    added = torch.tensor(new)
    seen: list[list[float]] = []
    for part in parts:
        kv = part.slab.kv[0, 0, : part.count, 0, :, 0]
        kv[torch.arange(part.count), part.columns.squeeze(1)] = added[part.rows]
        mask = part.mask()
        for slot in range(part.count):
            visible = torch.ones(part.seen) if mask is None else (mask[slot, 0, 0] == 0)
            seen.append(kv[slot, : part.seen][visible.bool()].tolist())
    slabs.grow()
    for row, token in enumerate(new):
        rows[row].append(token)
        assert seen[row if back is None else int(back[row])] == rows[row]


def test_rows_of_like_length_lie_together() -> None:
    slabs = Slabs(1, 1, 1)
    for length in (3, 200, 5, 31, 32):
        slabs.add([length])
    parts, _ = slabs.parts()
    assert sorted((part.slab.columns, part.count) for part in parts) == [(32, 3), (64, 1), (256, 1)]


def test_leavers_make_room() -> None:
    slabs = Slabs(1, 1, 1)
    for _ in range(8):
        slabs.add([4])
    before = slabs.nbytes
    for _ in range(50):
        slabs.drop([0, 1, 2], [5, 6, 7], 5)
        assert sum(part.count for part in slabs.parts()[0]) <= 7
        for _ in range(3):
            slabs.add([4])
    assert slabs.nbytes == before
