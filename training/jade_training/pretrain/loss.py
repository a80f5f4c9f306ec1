"""The loss of a step, and the same rows read greedily.

Invariant: only action tokens are learned; a row weighs the same however long its action, and what padding holds changes
nothing (rows are padded on the right of a causal model).
"""

from __future__ import annotations

import math
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


def backward(
    model: Any, rows: Sequence[Row], *, tokens: int = 4096, bf16: bool = False, guide: float = 0.0
) -> tuple[float, float]:
    """Add the gradient of the parts' mean loss and, times `guide`, of that of where the reading head looks.

    Returns:
        The loss in nats per action token, and the guidance loss in nats per token that is read off a document (0
        where nothing is, or without guidance).
    """
    import torch

    total, looked = 0.0, 0.0
    parts = sum(len(r.parts) for r in rows)
    read = sum(at >= 0 for r in rows for seen in r.seen for at in seen)
    for chunk in chunks(rows, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16), Guide(model) as guidance:
            logits, ids, part = action_logits(model, chunk)
            astray = guidance.loss(chunk) if guide and read else None
        losses = torch.nn.functional.cross_entropy(logits.float(), ids, reduction="none")
        loss = whole = (losses / torch.bincount(part)[part]).sum() / parts
        if astray is not None:
            whole = loss + guide * astray / read
            looked += astray.item() / read
        whole.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, looked


class Guide:
    """Sees where the reading head looks: the first head of the last layer but one.

    While this context is open, a forward pass leaves what that layer's attention was given.
    """

    def __init__(self, model: Any) -> None:
        self.attention = model.model.layers[max(0, model.config.num_hidden_layers - 2)].self_attn
        self.size = model.config.head_dim

    def __enter__(self) -> Guide:
        def keep(_: Any, args: Any, given: dict[str, Any]) -> None:
            self.hidden = given["hidden_states"] if "hidden_states" in given else args[0]
            self.turns = given["position_embeddings"]

        self.hook = self.attention.register_forward_pre_hook(keep, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.hook.remove()

    def loss(self, rows: Sequence[Row]) -> torch.Tensor | None:
        """The sum of -log(attention) over tokens that are read off a document, at the place where they stand in it.

        A token is predicted one position before its own; what that position may look at is the prefix and its part up
        to itself, of which only the prefix counts here. None where nothing is read.
        """
        import torch
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        asked: list[tuple[int, int, int]] = []
        for i, row in enumerate(rows):
            start = len(row.prefix)
            for (prompt, action), seen in zip(row.parts, row.seen, strict=False):
                first = start + len(prompt) - 1
                asked += [(i, first + j, at) for j, at in enumerate(seen) if at >= 0]
                start += len(prompt) + len(action)
        if not asked:
            return None
        row_of, column, gold = torch.tensor(asked).T
        longest = max(len(r.prefix) for r in rows)
        cos, sin = self.turns
        queries = self.attention.q_proj(self.hidden[row_of, column])[:, None, None, : self.size]
        keys = self.attention.k_proj(self.hidden[:, :longest])[:, None, :, : self.size]
        queries, _ = apply_rotary_pos_emb(queries, queries, cos[row_of, column][:, None], sin[row_of, column][:, None])
        keys, _ = apply_rotary_pos_emb(keys, keys, cos[:, :longest], sin[:, :longest])
        scores = torch.bmm(keys[row_of, 0].float(), queries[:, 0, 0, :, None].float())[..., 0] / math.sqrt(self.size)
        behind = torch.arange(longest) >= torch.tensor([len(r.prefix) for r in rows])[row_of][:, None]
        return torch.nn.functional.cross_entropy(scores.masked_fill(behind, -torch.inf), gold, reduction="sum")


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
