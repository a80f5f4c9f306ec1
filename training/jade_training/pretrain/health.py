"""How well a model carries out each role on worlds it has not seen: exact match with the oracle, role by role.

Invariant: nothing here samples or trains; the same model, world and seed give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.microworld.lexicon import Split
from jade_training.pretrain.batches import encode
from jade_training.pretrain.loss import exact
from jade_training.supervised.demonstrations import Demonstration, Demonstrator


def health_set(*, split: Split = "validation", seed: int = 7, sets: int = 30, short: int = 160) -> list[Demonstration]:
    """Demonstrations of every role but the planner, with five documents where a role reads them."""
    demonstrator = Demonstrator(seed, split=split)
    shown = [d for _ in range(sets) for d in demonstrator.reading(4, 6)]
    return shown + [d for d in (demonstrator.short() for _ in range(short)) if d.role != "PL"]


def health(model: Any, tokenizer: Any, shown: Sequence[Demonstration]) -> Mapping[str, float]:
    """Greedy exact match by role, and for the answerer by kind of question ("AG 1hop"); "AG closed" reads nothing."""
    was_training = model.training
    model.eval()
    hits: dict[str, list[bool]] = {}
    for demonstration in shown:
        name = demonstration.role
        right = exact(model, encode(tokenizer, [demonstration]))[0][0]
        hits.setdefault(name, []).append(right)
        if name in ("AG", "DS"):
            detail = demonstration.kind if demonstration.documents else "closed"
            hits.setdefault(f"{name} {detail}", []).append(right)
    model.train(was_training)
    return {name: sum(values) / len(values) for name, values in sorted(hits.items())}
