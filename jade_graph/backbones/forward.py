"""Runs a transformers model over a ragged batch: prompts once, then one token per row and step.

Invariant: rows are padded on the left, padding is masked and positions count real tokens only, so a row's logits are
those it would have alone; finished rows are taken out of the key-value cache, the others stay as they were.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from jade_graph.backbones.prefixes import Stem, shared_stems
from jade_graph.backbones.sampler import move_rows

# Rows of a prefill go together while the padding stays below this share of it (or there are fewer than 4).
_PADDING_SHARE = 0.15
# A common beginning is computed once where that saves so many tokens.
_WORTH = 64
# Columns to spare where memory is laid out anew, so that not every row that joins needs that.
_SLACK = 64


class Session(Protocol):
    """One batch in flight, without rows at first.

    `open`: whether rows may be admitted to a batch that has begun. `padded_tokens`: prompt tokens computed so far.
    """

    padded_tokens: int

    @property
    def open(self) -> bool: ...

    def admit(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> Tensor:
        """Rows more, behind the others: logits (prompts, vocabulary) after the prompts.

        Args:
            new_tokens: how many tokens each row will add at most.
        """
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after one more token (rows,) per row."""
        ...

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Take finished rows out: rows `movers` fill the `holes`, the first `count` stay."""
        ...

    def wipe(self, rows: Sequence[int]) -> None:
        """Forget the numbers of these rows, which are not finite and are about to leave."""
        ...

    def close(self) -> None:
        """The batch is over, and nothing went wrong."""
        ...


def prefill_groups(lengths: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Split rows, sorted by length, into [first, last) runs of little padding and at most `budget` tokens."""
    first = 0
    total = 0
    for row, length in enumerate(lengths):
        rows = row - first + 1
        padded = rows * length
        wasteful = rows > 4 and padded - total - length > _PADDING_SHARE * padded
        if row > first and (padded > budget or wasteful):
            yield first, row
            first, total = row, 0
        total += length
    yield first, len(lengths)


class SlabLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values in room reserved once, (rows, heads, columns, width): nothing is copied as it grows.

    The last column written is the same for all rows. Before each forward pass, `place` says which rows it is for, the
    column its tokens go to, and the first column it may look back to.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.columns = rows, columns
        self.where: Any = slice(0, rows)
        self.column, self.start = 0, 0
        self.slab: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        # Zeros: masked columns get weight 0, and 0 times whatever was in memory must be 0.
        self.slab = (
            key_states.new_zeros((self.rows, key_states.shape[1], self.columns, key_states.shape[3])),
            value_states.new_zeros((self.rows, value_states.shape[1], self.columns, value_states.shape[3])),
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.slab is None:
            self.lazy_initialization(key_states, value_states)
        assert self.slab is not None
        end = self.column + key_states.shape[2]
        keys, values = self.slab
        keys[self.where, :, self.column : end] = key_states
        values[self.where, :, self.column : end] = value_states
        if self.start == self.column:
            return key_states, value_states
        return keys[self.where, :, self.start : end], values[self.where, :, self.start : end]

    def place(self, where: Any, start: int, column: int) -> None:
        self.where, self.start, self.column = where, start, column

    def get_seq_length(self) -> int:
        return self.column - self.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def rebuild(self, rows: int, columns: int, kept: slice, place: slice, shift: int) -> None:
        """Other memory: the rows `kept` at the same place, in the columns `place`, where they were `shift` before."""
        assert self.slab is not None
        old = self.slab
        self.rows, self.columns = rows, columns
        self.lazy_initialization(*old)
        for part, other in zip(self.slab, old, strict=True):
            part[kept, :, place] = other[kept, :, place.start - shift : place.stop - shift]

    def move(self, holes: Tensor, movers: Tensor) -> None:
        if self.slab is not None and holes.numel():
            for part in self.slab:
                part[holes] = part[movers]


def reserves(model: Any) -> bool:
    """Whether every layer of the model attends to everything before it, so that `SlabLayer` can hold its cache."""
    layers = DynamicCache(config=model.config).layers
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    return all(type(layer) is DynamicLayer for layer in layers) and len(layers) in (0, count) and count > 0


class HFSession:
    """A batch through any transformers causal LM.

    It is open where `SlabLayer` can hold the model's cache. Rows that join are computed apart and then put beside the
    others, so that the last token of every row is in the same column.

    Args:
        model: in evaluation mode.
        budget: most prompt tokens, padding included, in one forward pass.
    """

    def __init__(self, model: Any, budget: int) -> None:
        self._model = model
        self._budget = budget
        self._rows = 0
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._layers = int(model.config.get_text_config().num_hidden_layers) if reserves(model) else 0
        self.padded_tokens = 0

    @property
    def open(self) -> bool:
        return self._layers > 0

    def admit(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> Tensor:
        if self._rows == 0:
            self._begin(prompts, max(new_tokens))
            return self._prefill_all()
        beside = HFSession(self._model, self._budget)
        beside._begin(prompts, 0)
        logits = beside._prefill_all()
        self._join(beside, max(new_tokens))
        self.padded_tokens += beside.padded_tokens
        return logits

    def _begin(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        device = self._model.device
        self._prompts = prompts
        self._rows = len(prompts)
        self._lengths = [len(prompt) for prompt in prompts]
        self._columns = max(self._lengths)
        self._end = self._columns + new_tokens
        lengths = torch.tensor(self._lengths, device=device)
        room = torch.arange(self._end, device=device)
        self._mask = (room >= self._columns - lengths.unsqueeze(1)).long()
        self._ragged = len(set(self._lengths)) > 1
        self._positions = lengths.clone()
        self._slab = [SlabLayer(self._rows, self._end) for _ in range(self._layers)]
        self._cache: Any = Cache(layers=list(self._slab)) if self._slab else DynamicCache(config=self._model.config)

    def _join(self, beside: HFSession, new_tokens: int) -> None:
        """Put the rows of another session, which has none of their new tokens, below these."""
        before, rows, width = self._rows, self._rows + beside._rows, beside._columns
        self._end = max(self._end, self._columns + new_tokens)
        if width > self._columns or self._end > self._slab[0].columns or rows > self._slab[0].rows:
            # Nothing is before the longest row's first column: without that, the memory does not grow with time.
            longest = int(self._positions.max())
            shift = max(longest, width) - self._columns
            kept = self._mask[:, self._columns - longest : self._columns]
            self._columns, self._end = self._columns + shift, self._end + shift
            room, more = self._end + _SLACK, rows + rows // 2
            self._mask = self._mask.new_ones((before, room))
            self._mask[:, : self._columns - longest] = 0
            self._mask[:, self._columns - longest : self._columns] = kept
            for layer in self._slab:
                layer.rebuild(more, room, slice(0, before), slice(self._columns - longest, self._columns), shift)
        start = self._columns - width
        for layer, source in zip(self._slab, beside._slab, strict=True):
            assert layer.slab is not None
            assert source.slab is not None
            for target, computed in zip(layer.slab, source.slab, strict=True):
                target[before:rows, :, start : self._columns] = computed
        mask = self._mask.new_ones((rows, self._mask.shape[1]))
        mask[:before] = self._mask
        mask[before:, :start] = 0
        mask[before:, start : self._columns] = beside._mask
        self._mask = mask
        self._positions = torch.cat([self._positions, beside._positions])
        self._ragged = True
        self._rows = rows

    def _prefill_all(self) -> Tensor:
        known = [0] * self._rows
        if self._slab:
            self._grow(shared_stems(self._prompts, _WORTH), known)
        left = [length - done for length, done in zip(self._lengths, known, strict=True)]
        if not self._slab:  # the cache is the model's own: its rows stay in the order in which they came
            return self._prefill(list(range(self._rows)), max(left))
        order = sorted(range(self._rows), key=left.__getitem__)
        groups = list(prefill_groups([left[row] for row in order], self._budget))
        parts = [self._prefill(order[first:last], left[order[last - 1]]) for first, last in groups]
        back = torch.tensor(order, device=self._mask.device).argsort()
        return torch.cat(parts)[back]

    def _grow(self, stems: Sequence[Stem], known: list[int]) -> None:
        """Compute each stem once and copy its keys and values to its rows; say in `known` how much that was."""
        if not stems:
            return
        stems = sorted(stems, key=lambda stem: stem.length)
        beginnings = [self._prompts[stem.rows[0]][: stem.length] for stem in stems]
        once = HFSession(self._model, self._budget)
        once._begin(beginnings, 0)
        once._prefill_all()
        self.padded_tokens += once.padded_tokens
        for layer, source in zip(self._slab, once._slab, strict=True):
            assert source.slab is not None
            layer.lazy_initialization(*source.slab)
            assert layer.slab is not None
            for target, computed in zip(layer.slab, source.slab, strict=True):
                for number, stem in enumerate(stems):
                    for row in stem.rows:
                        column = self._columns - self._lengths[row]
                        part = computed[number, :, once._columns - stem.length :]
                        target[row, :, column : column + stem.length] = part
        for stem in stems:
            for row in stem.rows:
                known[row] = stem.length

    def _prefill(self, rows: list[int], width: int) -> Tensor:
        """The last `width` tokens of these prompts (of shorter ones all, after padding): logits (rows, vocabulary)."""
        device = self._mask.device
        longest = max(self._lengths[row] for row in rows)
        start = self._columns - longest
        tails = [list(self._prompts[row][-width:]) for row in rows]
        ids = torch.tensor([[0] * (width - len(tail)) + tail for tail in tails], device=device)
        together = rows == list(range(rows[0], rows[0] + len(rows)))
        where: Any = slice(rows[0], rows[0] + len(rows)) if together else torch.tensor(rows, device=device)
        for layer in self._slab:
            layer.place(where, start, self._columns - width)
        mask = self._mask[where, start : self._columns]
        masked = width < longest or any(self._lengths[row] < longest for row in rows)
        inputs: dict[str, Any] = {"attention_mask": mask if masked else None, **self._extra}
        if self._takes_positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp_(min=0)[:, -width:]
        output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **inputs)
        self.padded_tokens += ids.numel()
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        column = self._columns
        self._columns += 1
        for layer in self._slab:
            layer.place(slice(0, self._rows), 0, column)
        inputs: dict[str, Any] = {
            "attention_mask": self._mask[:, : column + 1] if self._ragged else None,
            **self._extra,
        }
        if self._takes_positions:
            inputs["position_ids"] = self._positions.unsqueeze(1)
        output = self._model(
            input_ids=tokens.to(self._mask.device).unsqueeze(1),
            past_key_values=self._cache,
            use_cache=True,
            **inputs,
        )
        self._positions += 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def wipe(self, rows: Sequence[int]) -> None:
        for layer in self._slab:
            for part in layer.slab or ():
                part[list(rows)] = 0

    def close(self) -> None:
        """Nothing is kept."""

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        device = self._mask.device
        holes, movers = holes.to(device), movers.to(device)
        if self._slab:
            for layer in self._slab:
                layer.move(holes, movers)
        else:
            order = torch.arange(self._rows, device=device)
            order[holes] = movers
            self._cache.reorder_cache(order[:count])
        self._mask = move_rows(self._mask, holes, movers, count)
        self._positions = move_rows(self._positions, holes, movers, count)
        self._rows = count
