"""The loss of a step, and the same rows read greedily.

Invariant: only action tokens are learned; a row weighs the same however long its action, and what padding holds changes
nothing (rows are padded on the right of a causal model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jade_training.pretrain.batches import Row

if TYPE_CHECKING:
    import torch


def chunks(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Rows sorted by length, cut into padded batches of at most `tokens` tokens (or one row)."""
    found: list[list[Row]] = []
    for row in sorted(rows, key=lambda r: r.length):
        if found and (len(found[-1]) + 1) * row.length <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def action_logits(model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, vocabulary) at the N action tokens of all parts, their ids (N,), and the part (N,) of each.

    Parts are numbered in the order of the rows. Positions go on from the prefix in each part, and a part attends to the
    prefix and itself: every number is as if the part stood alone behind its prefix.
    """
    import torch

    length = max(r.length for r in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), -1)
    at: list[tuple[int, int, int]] = []
    count = 0
    for i, row in enumerate(rows):
        pieces = [row.prefix, *([*prompt, *action] for prompt, action in row.parts)]
        start = 0
        for segment, piece in enumerate(pieces):
            end, first = start + len(piece), 0 if segment == 0 else len(row.prefix)
            ids[i, start:end] = torch.tensor(piece, dtype=torch.long)
            positions[i, start:end] = torch.arange(first, first + len(piece))
            segments[i, start:end] = segment
            if segment:
                at += [(i, end - j, count) for j in range(len(row.parts[segment - 1][1]), 0, -1)]
                count += 1
            start = end
    seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    hidden = model.model(
        input_ids=ids, position_ids=positions, attention_mask=mask[:, None], use_cache=False
    ).last_hidden_state
    row_of, column, part = torch.tensor(at).T
    return model.lm_head(hidden[row_of, column - 1]), ids[row_of, column], part


def backward(model: Any, rows: Sequence[Row], *, tokens: int = 4096, bf16: bool = False) -> float:
    """Add the gradient of the parts' mean loss; returns that loss in nats per action token."""
    import torch

    total = 0.0
    parts = sum(len(r.parts) for r in rows)
    for chunk in chunks(rows, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits, ids, part = action_logits(model, chunk)
        losses = torch.nn.functional.cross_entropy(logits.float(), ids, reduction="none")
        loss = (losses / torch.bincount(part)[part]).sum() / parts
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def exact(model: Any, rows: Sequence[Row], *, tokens: int = 8192) -> list[list[bool]]:
    """Whether greedy decoding would write each part's action: one list a row, in the order given."""
    import torch

    right: dict[int, list[bool]] = {}
    with torch.no_grad():
        for chunk in chunks(rows, tokens):
            logits, ids, part = action_logits(model, chunk)
            hits = logits.argmax(-1) == ids
            count = 0
            for row in chunk:
                right[id(row)] = [bool(hits[part == count + j].all()) for j in range(len(row.parts))]
                count += len(row.parts)
    return [right[id(row)] for row in rows]
