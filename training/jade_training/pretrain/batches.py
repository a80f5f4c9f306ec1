"""What one training step reads: rows of (prompt ids, action ids), seeded by the step.

Invariant: `rows_of(step)` depends on the seed and the step alone, so a resumed training sees what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jade_training.pretrain.demonstrations import Demonstration, Demonstrator

Part = tuple[list[int], list[int]]
"""Prompt ids, and the ids to be learned after them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: a prefix, and parts that each continue it as if the other parts were not there.

    Reading the same documents for several questions at once costs a third of reading them again for each.
    """

    prefix: list[int]
    parts: list[Part]

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.prefix) + sum(len(prompt) + len(action) for prompt, action in self.parts)


@dataclass
class Curriculum:
    """The rows of each step: first recall, then demonstrations with ever more documents.

    Attributes:
        steps: of the whole training.
        warmup: steps of repeated sequences and key-value recall at the start.
        long, short: sets of documents, and demonstrations of roles that read none, a step.
        asks: demonstrations over each set of documents.
        steps_per_world: after how many steps a new training world begins.
    """

    tokenizer: Any
    seed: int
    steps: int
    warmup: int = 400
    long: int = 16
    short: int = 48
    asks: int = 6
    steps_per_world: int = 20
    _world: tuple[int, Demonstrator] | None = field(default=None, repr=False)

    def rows_of(self, step: int) -> list[Row]:
        rng = random.Random(f"pretrain {self.seed} {step}")
        if step < self.warmup:
            return recall_rows(rng, len(self.tokenizer), 2 * (self.long + self.short))
        demonstrator = self._demonstrator(step // self.steps_per_world)
        demonstrator.rng = rng
        most = self.distractors(step)
        shown = [demonstrator.short() for _ in range(self.short)]
        for _ in range(self.long):
            shown += demonstrator.reading(rng.randint(max(1, most - 1), most), self.asks)
        return encode(self.tokenizer, shown)

    def distractors(self, step: int) -> int:
        """Documents beside the evidence: 1, 2, 3, then 4 from 45 % of the demonstrations on."""
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 1 + (done > 0.1) + (done > 0.25) + (done > 0.45)

    def _demonstrator(self, index: int) -> Demonstrator:
        if self._world is None or self._world[0] != index:
            self._world = index, Demonstrator(self.seed * 100_003 + index)
        return self._world[1]


def encode(tokenizer: Any, shown: Sequence[Demonstration]) -> list[Row]:
    """Token ids as the engine gives them to the model; an action ends with the end token.

    Demonstrations over the same documents become parts of one row.
    """
    prompts = tokenizer([d.prompt for d in shown], add_special_tokens=False)["input_ids"]
    actions = tokenizer([d.action for d in shown], add_special_tokens=False)["input_ids"]
    rows: dict[str, Row] = {}
    alone: list[Row] = []
    for demonstration, prompt, action in zip(shown, prompts, actions, strict=True):
        part = (prompt, [*action, tokenizer.eos_token_id])
        if not demonstration.documents:
            alone.append(Row([], [part]))
        elif demonstration.documents in rows:
            rows[demonstration.documents].parts.append(part)
        else:
            prefix = tokenizer(demonstration.documents, add_special_tokens=False)["input_ids"]
            rows[demonstration.documents] = Row(prefix, [part])
    return [*rows.values(), *alone]


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
