"""What one training step reads: rows of (prompt ids, action ids), seeded by the step.

What it takes for a model of this size to read, in the order in which it is learned: to repeat what was said (recall),
to look up what was named before a marker (markers), then one document, then more. Each fails without the one before.

Invariant: `rows_of(step)` depends on the seed and the step alone, so a resumed training sees what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jade_graph.microworld.frames import UNKNOWN
from jade_training.supervised.demonstrations import SHORT_ROLES, Demonstration, Demonstrator

RECALL_ROWS, MARKER_ROWS = 64, 32
Part = tuple[list[int], list[int]]
"""Prompt ids, and the ids to be learned after them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: a prefix, and parts that each continue it as if the other parts were not there.

    Reading the same documents for several questions at once costs a third of reading them again for each.
    """

    prefix: list[int]
    parts: list[Part]
    seen: list[list[int]] = field(default_factory=list)
    """For each part and action token, the position in the prefix that it is read off, or -1; or nothing at all."""

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.prefix) + sum(len(prompt) + len(action) for prompt, action in self.parts)


@dataclass
class Curriculum:
    """The rows of each step: recall, then markers, then demonstrations with ever more documents.

    Attributes:
        steps: of the whole training.
        warmup: steps of repeated sequences and key-value recall at the start.
        markers: steps of key-value questions in the form of the answerer's prompt after them.
        long, short: sets of documents, and demonstrations of roles that read none, a step.
        asks: demonstrations over each set of documents.
        hasty: see `Demonstrator`.
        shares: of the roles among the short ones; `comparisons`: see `Demonstrator.short`.
        steps_per_world: after how many steps a new training world begins.
    """

    tokenizer: Any
    seed: int
    steps: int
    warmup: int = 60
    markers: int = 80
    long: int = 10
    short: int = 36
    asks: int = 16
    steps_per_world: int = 20
    hasty: float = 0.0
    shares: Mapping[str, float] = field(default_factory=lambda: SHORT_ROLES)
    comparisons: float = 0.0
    _world: tuple[int, Demonstrator] | None = field(default=None, repr=False)

    def rows_of(self, step: int) -> list[Row]:
        rng = random.Random(f"pretrain {self.seed} {step}")
        if step < self.warmup:
            return recall_rows(rng, len(self.tokenizer), RECALL_ROWS)
        if step < self.warmup + self.markers:
            return marker_rows(rng, self.tokenizer, MARKER_ROWS)
        demonstrator = self._demonstrator(step // self.steps_per_world)
        demonstrator.rng = rng
        demonstrator.hasty = self.hasty
        most = self.distractors(step)
        shown = [demonstrator.short(None, self.shares, self.comparisons) for _ in range(self.short)]
        for _ in range(self.long):
            read = demonstrator.reading(rng.randint(most // 2, most), self.asks)
            # With a single document only what it answers is asked: "unknown" would be learned first, and stay.
            shown += read if most else [d for d in read if d.role == "AG" and UNKNOWN not in d.action]
        return encode(self.tokenizer, shown)

    def phase(self, step: int) -> str:
        """What a step teaches, for people."""
        if step < self.warmup:
            return "recall"
        if step < self.warmup + self.markers:
            return "markers"
        return f"roles, {1 + self.distractors(step)} documents"

    def distractors(self, step: int) -> int:
        """The most documents beside the evidence: 0 in the first quarter of the roles, 4 in the last half."""
        first = self.warmup + self.markers
        done = (step - first) / max(1, self.steps - first)
        return sum(done > part for part in (0.25, 0.34, 0.42, 0.5))

    def _demonstrator(self, index: int) -> Demonstrator:
        if self._world is None or self._world[0] != index:
            self._world = index, Demonstrator(self.seed * 100_003 + index)
        return self._world[1]


def encode(tokenizer: Any, shown: Sequence[Demonstration]) -> list[Row]:
    """Token ids as the engine gives them to the model; an action ends with the end token.

    Demonstrations over the same documents become parts of one row.
    """

    def ids(texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    prompts, actions = ids([d.prompt for d in shown]), ids([d.action for d in shown])
    markers = {token: i for i, token in enumerate(tokenizer.convert_tokens_to_ids([f"Document{i}" for i in range(10)]))}
    rows: dict[str, Row] = {}
    alone: list[Row] = []
    for demonstration, prompt, action in zip(shown, prompts, actions, strict=True):
        part = (prompt, [*action, tokenizer.eos_token_id])
        if not demonstration.documents:
            alone.append(Row([], [part]))
        else:
            if demonstration.documents not in rows:
                rows[demonstration.documents] = Row(ids([demonstration.documents])[0], [])
            row = rows[demonstration.documents]
            cited = [(i, ids([text])[0]) for i, text in demonstration.cites]
            row.parts.append(part)
            row.seen.append(_read_off(row.prefix, part[1], cited, markers))
    return [*rows.values(), *alone]


def _read_off(
    prefix: list[int], action: list[int], cited: Sequence[tuple[int, list[int]]], markers: dict[int, int]
) -> list[int]:
    """Where each token of an action stands in the documents, -1 for tags and what is not read.

    A selected id is read off the first of the words cited in its document, an answer off its own words.
    """
    starts = [i for i, token in enumerate(prefix) if token in markers]
    found = [-1] * len(action)
    for document, words in cited:
        first = starts[document]
        last = starts[document + 1] if document + 1 < len(starts) else len(prefix)
        at = next((i for i in range(first, last) if prefix[i : i + len(words)] == words), None)
        if at is None:
            continue
        for j, token in enumerate(action):
            if markers.get(token) == document:
                found[j] = at
        if action[1 : 1 + len(words)] == words:
            found[1 : 1 + len(words)] = range(at, at + len(words))
    return found


def marker_rows(rng: random.Random, tokenizer: Any, count: int) -> list[Row]:
    """Lists of keys and values, asked as the answerer is: the key stands before the marker that the value follows.

    A quarter of the rows are plain recall, so that it is not lost.
    """

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    ask, end, opened, stop = ids("answer :"), ids("?\n"), ids("<answer>"), ids(".")
    closed = [*ids("</answer>"), tokenizer.eos_token_id]
    rows = recall_rows(rng, len(tokenizer), count // 4)
    for _ in range(count - len(rows)):
        pairs, width, size = rng.randint(3, 10), rng.randint(1, 2), rng.randint(1, 2)
        drawn = iter(rng.sample(range(3, len(tokenizer)), pairs * (width + size)))
        items = [([next(drawn) for _ in range(width)], [next(drawn) for _ in range(size)]) for _ in range(pairs)]
        asked = rng.choices(items, k=8)
        parts = [([*ask, *key, *end], [*opened, *value, *closed]) for key, value in asked]
        rows.append(Row([token for key, value in items for token in (*key, *value, *stop)], parts))
    return rows


def recall_rows(rng: random.Random, vocabulary: int, count: int) -> list[Row]:
    """Half sequences said twice, half lists of keys and values with one key asked: what reading is made of."""
    rows: list[Row] = []
    for i in range(count):
        if i % 2:
            said = [rng.randrange(3, vocabulary) for _ in range(rng.randint(12, 40))]
            rows.append(Row([], [([*said, said[0]], said[1:])]))
        else:
            pairs = rng.randint(4, 16)
            width = rng.randint(1, 2)
            drawn = rng.sample(range(3, vocabulary), 2 * width * pairs)
            items = [drawn[2 * width * j : 2 * width * (j + 1)] for j in range(pairs)]
            rows.append(
                Row([t for item in items for t in item], [(a[:width], a[width:]) for a in rng.sample(items, 4)])
            )
    return rows
