"""What keeps roles that the policy seldom visits from rotting: demonstrations of theirs, replayed while it learns.

Invariant: nothing that is scored is taught here. Reading (AG, DS) is left to learning; demonstrations are of worlds of
the split "train", or of the questions that are learned from, with the tokens that the engine would produce.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.backbones.codec import Codec
    from jade_graph.microworld.shown import Shown
    from jade_training.learner.logits import Pair

HELD = ("QR", "QDS", "QDP", "AS")
"""Roles whose skill is complete at the start, and which nothing rewards while the planner does not call them."""


def replay_of(
    shown: Sequence[Shown], codec: Codec, *, count: int = 400, seed: int = 0, roles: Sequence[str] = HELD
) -> list[Pair]:
    """(prompt ids, action ids) of somebody's demonstrations, evenly of each role that there are any of; seeded."""
    from jade_training.supervised.files import pairs

    rng = random.Random(f"replay {seed}")
    by_role = [[s for s in shown if s.role == role] for role in roles]
    drawn = [rng.sample(found, min(len(found), count // len(roles))) for found in by_role if found]
    return [(list(prompt), list(action)) for role in drawn for prompt, action in pairs(codec, role)]


def microworld_replay(tokenizer: Any, *, count: int = 400, seed: int = 0, roles: tuple[str, ...] = HELD) -> list[Pair]:
    """(prompt ids, action ids) of demonstrations, evenly of each role, half of QR's parts behind siblings; seeded."""
    from jade_training.supervised.demonstrations import Demonstrator
    from jade_training.supervised.sft import encoded

    demonstrator = Demonstrator(1_000_003 + seed, siblings=True)
    drawn = [(roles[i % len(roles)], i // len(roles) % 2 > 0) for i in range(count)]
    return encoded(tokenizer, [demonstrator.short(role, behind=odd and role == "QR") for role, odd in drawn])
