"""One forward pass over (prompt, action) pairs: logits where an action token is predicted, and nowhere else.

Invariant: what padding holds changes nothing (rows are padded on the right of a causal model), and the numbers are
those that the model's own `forward` gives: a model for which the short way disagrees is run the long way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jade_training.learner.adapters import adapters_are_known, bare, woken
from jade_training.learner.fast import FastTrunk
from jade_training.learner.trees import Pair as Pair
from jade_training.learner.trees import families, lay_out, length
from jade_training.learner.trl_ import disable_dropout

FEW_THREADS = 20_000_000
"""Models with fewer parameters learn on one thread of the CPU."""

SLACK = 8
"""Padding of a group of rows stays below this part of its most tokens."""


@dataclass(frozen=True, slots=True)
class Packed:
    """R rows padded to one length L, with N action tokens in all.

    Attributes:
        ids: (R, L).
        rows, columns: of each action token (N,); its logits are those of the column before.
        targets: the action tokens (N,).
        lengths: of each row's action (R,).
        last: the column of each row's last prompt token (R,).
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    lengths: Tensor
    last: Tensor


def pack(pairs: Sequence[Pair], device: torch.device | str = "cpu") -> Packed:
    """Pad the pairs on the right, and say where their actions are."""
    starts = np.array([len(prompt) for prompt, _ in pairs])
    lengths = np.array([len(action) for _, action in pairs])
    ids = np.zeros((len(pairs), int((starts + lengths).max())), dtype=np.int64)
    for i, (prompt, action) in enumerate(pairs):
        ids[i, : starts[i]] = prompt
        ids[i, starts[i] : starts[i] + lengths[i]] = action
    rows = np.repeat(np.arange(len(pairs)), lengths)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = starts[rows] + within
    parts = (ids, rows, columns, ids[rows, columns], lengths, starts - 1)
    return Packed(*(torch.from_numpy(part).to(device) for part in parts))


@dataclass(frozen=True, slots=True)
class Branched:
    """G prompts with several actions each, which do not see one another: prompt and actions in one row of length L.

    Attributes:
        ids, positions: (G, L); each action's positions go on from the prompt's.
        own: (G, L); 0 in the prompt, else the number of the action. Padding is an action of its own.
        rows, within: of each action token (N,): its row, and which of the row's `asked` predicts it.
        asked: columns (G, A) that predict an action token; spare places repeat the first.
    """

    ids: Tensor
    positions: Tensor
    own: Tensor
    rows: Tensor
    within: Tensor
    asked: Tensor


def branch(groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Branched:
    """Lay prompts and their actions out, in the order in which `pack` has the tokens of the pairs."""
    length = max(len(prompt) + sum(map(len, actions)) for prompt, actions in groups)
    ids, positions = (np.zeros((len(groups), length), dtype=np.int64) for _ in range(2))
    own = np.full((len(groups), length), -1, dtype=np.int64)
    asked: list[list[int]] = []
    for g, (prompt, actions) in enumerate(groups):
        column = len(prompt)
        ids[g, :column], positions[g, :column], own[g, :column] = prompt, np.arange(column), 0
        asked.append([])
        for number, action in enumerate(actions, start=1):
            end = column + len(action)
            ids[g, column:end], own[g, column:end] = action, number
            positions[g, column:end] = len(prompt) + np.arange(len(action))
            asked[-1] += [len(prompt) - 1, *range(column, end - 1)]
            column = end
    counts = [len(each) for each in asked]
    rows = np.repeat(np.arange(len(groups)), counts)
    within = np.concatenate([np.arange(count) for count in counts])
    padded = np.array([each + [each[0]] * (max(counts) - len(each)) for each in asked])
    return Branched(*map(torch.from_numpy, (ids, positions, own, rows, within, padded)))


def chunks(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices sorted by length, cut into groups that padded hold at most `tokens` tokens (or one row).

    A group also ends where its padding would grow past an eighth of `tokens`: about what another pass costs.
    """
    found: list[list[int]] = []
    held = 0  # without padding
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        padded = (len(found[-1]) + 1) * lengths[i] if found else 0
        if found and padded <= tokens and padded - held - lengths[i] <= tokens // SLACK:
            found[-1].append(i)
            held += lengths[i]
        else:
            found.append([i])
            held = lengths[i]
    return found


class Reader:
    """Runs any Hugging Face causal LM (adapters or not) over packed rows.

    Args:
        model: in the mode that it is to be run in.
        bf16: autocast to bfloat16.
    """

    def __init__(self, model: Any, *, bf16: bool = False) -> None:
        self.model = model
        self.bf16 = bf16
        plain = bare(model)
        self._trunk = plain.base_model
        self._head = plain.get_output_embeddings()
        self.short = self._trunk is not plain and self._head is not None and self._agrees()
        self._fast = FastTrunk.of(plain, bf16=bf16) if self.short else None
        if self._fast is not None and not self._fast_agrees(plain):
            self._fast = None
        large = sum(p.numel() for p in plain.parameters()) >= FEW_THREADS
        self.shares = self._fast is not None and large

    @property
    def fast(self) -> bool:
        """Whether `FastTrunk` runs this model."""
        return self._fast is not None

    def __call__(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Logits (N, vocabulary) at the action tokens, and hidden states (R, width) at the last prompt tokens."""
        if self._fast is not None:
            states, last = self._fast(packed)
            return self._head(states), last
        every = torch.arange(len(packed.ids), device=packed.ids.device)
        with torch.autocast(packed.ids.device.type, torch.bfloat16, enabled=self.bf16):
            if self.short:
                hidden = self._trunk(input_ids=packed.ids, use_cache=False).last_hidden_state
                logits = self._head(hidden[packed.rows, packed.columns - 1])
            else:
                out = self.model(input_ids=packed.ids, use_cache=False, output_hidden_states=True)
                hidden, logits = out.hidden_states[-1], out.logits[packed.rows, packed.columns - 1]
        return logits, hidden[every, packed.last]

    def read(self, pairs: Sequence[Pair], packed: Packed, longest: int) -> tuple[Tensor, Tensor]:
        """What `self(packed)` gives of the same pairs; where the model `shares`, equal beginnings are read once.

        Args:
            longest: most tokens of a family of such rows.
        """
        if not self.shares or self._fast is None:
            return self(packed)
        trees = lay_out(pairs, families(pairs, longest))
        states = self._fast.trees(trees)
        return self._head(states), states[trees.first]

    def cut(self, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
        """Indices of pairs, in groups that are read at most `tokens` tokens at a time, padding included."""
        if not self.shares:
            return chunks([len(prompt) + len(action) for prompt, action in pairs], tokens)
        grouped = families(pairs, tokens)
        lengths = [length([pairs[i] for i in family]) for family in grouped]
        return [[i for g in chunk for i in grouped[g]] for chunk in chunks(lengths, tokens)]

    def computed(self, pairs: Sequence[Pair], longest: int) -> int:
        """Tokens that a pass over these pairs computes, without padding."""
        if not self.shares:
            return sum(len(prompt) + len(action) for prompt, action in pairs)
        return sum(length([pairs[i] for i in family]) for family in families(pairs, longest))

    def actions(self, groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], packed: Packed) -> Tensor:
        """Logits (N, vocabulary) at the action tokens of prompts with several actions each.

        Args:
            packed: the same pairs of prompt and action, in this order; read as they are where `fast` is not.
        """
        if self._fast is None:
            return self(packed)[0]
        logits: Tensor = self._head(self._fast.branches(branch(groups)))
        return logits

    def hidden(self, packed: Packed) -> Tensor:
        """Hidden states (R, width) at the last prompt tokens alone."""
        if self._fast is not None:
            return self._fast(packed)[1]
        if not self.short:
            return self(packed)[1]
        every = torch.arange(len(packed.ids), device=packed.ids.device)
        with torch.autocast(packed.ids.device.type, torch.bfloat16, enabled=self.bf16):
            hidden: Tensor = self._trunk(input_ids=packed.ids, use_cache=False).last_hidden_state
        return hidden[every, packed.last]

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether trunk and head alone give the model's logits: some models scale or cap them on the way."""
        vocabulary = self._head.weight.shape[0]
        ids = (torch.arange(1, 9, device=self._head.weight.device) % vocabulary)[None]
        theirs = self.model(input_ids=ids, use_cache=False).logits.float()
        try:
            ours = self._head(self._trunk(input_ids=ids, use_cache=False).last_hidden_state).float()
        except (AttributeError, RuntimeError):  # a trunk of another shape
            return False
        return ours.shape == theirs.shape and bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3))

    @torch.no_grad()
    def _fast_agrees(self, plain: Any) -> bool:
        """Whether `FastTrunk` gives the same logits and states, in float32, on a ragged batch."""
        vocabulary = self._head.weight.shape[0]
        pairs = [([k % vocabulary for k in range(1, 1 + n)], [k % vocabulary for k in range(2, 2 + m)])
                 for n, m in ((3, 2), (9, 1), (1, 5))]  # fmt: skip
        if adapters_are_known(plain):
            with woken(plain):
                return self._same(plain, pairs)
        return self._same(plain, pairs)

    def _same(self, plain: Any, pairs: Sequence[Pair]) -> bool:
        packed = pack(pairs)
        exact = FastTrunk.of(plain)
        if exact is None:
            return False
        states, last = exact(packed)
        hidden = self._trunk(input_ids=packed.ids, use_cache=False).last_hidden_state
        asked = hidden[packed.rows, packed.columns - 1]
        found = [(states, asked), (last, hidden[torch.arange(len(pairs)), packed.last])]
        groups = [(prompt, [action, action[:1]]) for prompt, action in pairs]
        again = torch.cat([torch.cat([part, part[:1]]) for part in torch.split(asked, packed.lengths.tolist())])
        found.append((exact.branches(branch(groups)), again))
        alike = [(list(range(1, 20)), [k, 3]) for k in (4, 5)]
        laid = lay_out(alike, [[0, 1]])
        packed = pack(alike)
        hidden = self._trunk(input_ids=packed.ids, use_cache=False).last_hidden_state
        found.append((exact.trees(laid), hidden[packed.rows, packed.columns - 1]))
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max())) for a, b in found)


def distribution(logits: Tensor, temperature: Tensor) -> Tensor:
    """Log-probabilities (N, vocabulary) in float32 of `logits` at `temperature` (N,), as the sampler computes them."""
    return torch.log_softmax(logits.float() / temperature[:, None], dim=-1)


def without_dropout(model: Any) -> None:
    """Turn all dropout off, that of attention too: else the first ratio is not 1. Works in training mode."""
    disable_dropout(model)
    for module in model.modules():
        for name in ("attention_dropout", "dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@contextmanager
def few_threads(model: Any) -> Iterator[None]:
    """One thread for a small model on the CPU, within the context; every other model keeps what it has.

    Two threads gain nothing where the products are small, and OpenMP's wait for each other by spinning: on a machine
    that does other work too, an update of the bundled model then took 16 times the CPU time (10 s instead of 0.6).
    """
    parameters = list(model.parameters())
    before = torch.get_num_threads()
    small = sum(p.numel() for p in parameters) < FEW_THREADS and all(p.device.type == "cpu" for p in parameters)
    if not small or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the caller's random states back: a trainer's construction seeds every generator there is."""
    import random

    ours, theirs = random.getstate(), np.random.get_state()
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)
