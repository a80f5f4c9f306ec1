"""What keeps roles that the policy seldom visits from rotting: demonstrations of theirs, replayed while it learns.

Invariant: nothing that is scored is taught here. Reading (AG, DS) is left to learning; demonstrations are of worlds of
the split "train", with the tokens that the engine would produce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_training.learner.logits import Pair

HELD = ("QR", "QDS", "QDP", "AS")
"""Roles whose skill is complete at the start, and which nothing rewards while the planner does not call them."""


def microworld_replay(tokenizer: Any, *, count: int = 400, seed: int = 0, roles: tuple[str, ...] = HELD) -> list[Pair]:
    """(prompt ids, action ids) of demonstrations, evenly of each role, half of QR's parts behind siblings; seeded."""
    from jade_training.supervised.demonstrations import Demonstrator
    from jade_training.supervised.sft import encoded

    demonstrator = Demonstrator(1_000_003 + seed, siblings=True)
    drawn = [(roles[i % len(roles)], i // len(roles) % 2 > 0) for i in range(count)]
    return encoded(tokenizer, [demonstrator.short(role, behind=odd and role == "QR") for role, odd in drawn])
