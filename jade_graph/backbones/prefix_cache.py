"""Keys and values of beginnings of prompts, so that what prompts have in common is computed once.

Invariant: what is recalled for a prompt was computed by the same weights from the very same tokens at the same places:
a radix tree of token ids, compared one by one, with a slot in one pool of memory for each token. Memory is bounded;
what was used longest ago is forgotten first, never what the admission under way reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from jade_graph.backbones.memory import zeros
from jade_graph.backbones.prefixes import SHORTEST, common

_FIRST_ROOM = 1024
# Of the pool, what is freed at once where room is short: forgetting looks at every leaf.
_SHARE = 8

Slots = list[range]
"""Places in the pool, in the order of the tokens."""


class Recalled(NamedTuple):
    """What the cache knows of a prompt.

    Attributes:
        known: slots of its first tokens, fewer than it has: none, or at least `prefixes.SHORTEST`.
        at: where the tokens begin that are remembered from now on.
        fresh: slots for them: whoever computes the prompt writes the tokens from `at` on there, as many as these are.
    """

    known: Slots
    at: int
    fresh: Slots


@dataclass(slots=True, eq=False)
class _Node:
    """A stretch of tokens behind its parent's, with the slots of their keys and values."""

    tokens: tuple[int, ...]
    slots: Slots
    parent: _Node | None
    used: int
    children: dict[int, _Node] = field(default_factory=dict)


class PrefixCache:
    """A bounded memory of one model's keys and values.

    Args:
        layers, heads, width: the model's layers, key heads and their width.
        capacity: most tokens.
        dtype: of keys and values.

    Attributes:
        kv: (layers, 2, heads, slots, width): keys and values by slot. It moves as it grows: look it up after `recall`.
    """

    def __init__(self, layers: int, heads: int, width: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        self._capacity = capacity
        self.kv = torch.zeros(layers, 2, heads, 0, width, dtype=dtype)
        self._root = _Node((), [], None, 0)
        self._free: Slots = []
        self._clock = 0

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes

    def __len__(self) -> int:
        """Tokens that are remembered."""
        return self._room - count(self._free)

    @property
    def _room(self) -> int:
        return int(self.kv.shape[3])

    def clear(self) -> None:
        """Forget everything, and keep the memory."""
        self._root.children.clear()
        self._free = [range(self._room)]

    def recall(self, prompts: Sequence[Sequence[int]]) -> list[Recalled]:
        """What is known of each prompt, from earlier admissions or from the prompts before it in this one.

        At least one token of a prompt is always left to compute. What follows what is known is remembered from now on:
        the caller fills the slots, prompt after prompt, before anybody reads them.
        """
        self._clock += 1
        return [self._recall(tuple(prompt)) for prompt in prompts]

    def _recall(self, prompt: tuple[int, ...]) -> Recalled:
        node, at, slots = self._walk(prompt)
        fresh = self._take(len(prompt) - at)
        if fresh:
            tokens = prompt[at : at + count(fresh)]
            node.children[tokens[0]] = _Node(tokens, fresh, node, self._clock)
        known = min(at, len(prompt) - 1)
        return Recalled(cut(slots, known)[0] if known >= SHORTEST else [], at, fresh)

    def _walk(self, prompt: tuple[int, ...]) -> tuple[_Node, int, Slots]:
        """The node that ends with as much of the prompt as is known, how much that is, and its slots."""
        node, at = self._root, 0
        slots: Slots = []
        while at < len(prompt) and (child := node.children.get(prompt[at])) is not None:
            child.used = self._clock
            size = len(child.tokens)
            shared = size if prompt[at : at + size] == child.tokens else common(prompt[at : at + size], child.tokens)
            at += shared
            if shared < size:
                slots += cut(child.slots, shared)[0]
                return (child if at == len(prompt) else self._split(child, shared)), at, slots
            slots += child.slots
            node = child
        return node, at, slots

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut a node in two; returns the upper part, to which the rest is a child."""
        assert node.parent is not None
        above, below = cut(node.slots, at)
        upper = _Node(node.tokens[:at], above, node.parent, node.used)
        node.parent.children[node.tokens[0]] = upper
        node.tokens, node.slots, node.parent = node.tokens[at:], below, upper
        upper.children[node.tokens[0]] = node
        return upper

    def _take(self, wanted: int) -> Slots:
        """So many slots, or as many as there are."""
        free = count(self._free)
        if free < wanted:
            self._grow(wanted - free)
        if count(self._free) < wanted:
            self._forget(max(wanted, self._capacity // _SHARE))
        taken, self._free = cut(self._free, wanted)
        return taken

    def _grow(self, more: int) -> None:
        before = self._room
        room = min(self._capacity, max(2 * before, before + more, _FIRST_ROOM))
        if room > before:
            layers, two, heads, _, width = self.kv.shape
            grown = zeros((layers, two, heads, room, width), self.kv.dtype)
            grown[:, :, :, :before] = self.kv
            self.kv = grown
            self._free = joined([*self._free, range(before, room)])

    def _forget(self, wanted: int) -> None:
        """Give up leaves, the longest unused first, until so many slots are free or the rest is in use."""
        leaves = [(leaf.used, number, leaf) for number, leaf in enumerate(self._leaves(self._root))]
        heapq.heapify(leaves)
        number, free = len(leaves), count(self._free)
        while leaves and free < wanted:
            used, _, leaf = heapq.heappop(leaves)
            parent = leaf.parent
            if used == self._clock or parent is None:
                break
            self._free += leaf.slots
            free += len(leaf.tokens)
            del parent.children[leaf.tokens[0]]
            if not parent.children and parent.parent is not None:
                heapq.heappush(leaves, (parent.used, number, parent))
                number += 1
        self._free = joined(self._free)

    def _leaves(self, node: _Node) -> Iterator[_Node]:
        waiting = list(node.children.values())
        while waiting:
            each = waiting.pop()
            if each.children:
                waiting += each.children.values()
            else:
                yield each


def count(slots: Slots) -> int:
    return sum(map(len, slots))


def cut(slots: Slots, at: int) -> tuple[Slots, Slots]:
    """The first `at` slots, and the others."""
    for number, each in enumerate(slots):
        if at < len(each):
            above = [*slots[:number], each[:at]] if at else slots[:number]
            return above, [each[at:], *slots[number + 1 :]]
        at -= len(each)
    return list(slots), []


def joined(slots: Iterable[range]) -> Slots:
    """The same slots in order, neighbours as one."""
    found: Slots = []
    for each in sorted(slots, key=lambda each: each.start):
        if found and found[-1].stop == each.start:
            found[-1] = range(found[-1].start, each.stop)
        elif each:
            found.append(each)
    return found
