"""Which demonstrations are kept where a role has more of them than it needs.

Invariant: what is kept of a role comes as evenly from its sources as these allow, drawn with the seed; the order of
what is kept is the order in which it came.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jade_graph.errors import UsageError
from jade_graph.microworld.shown import Shown

# "AG=700,DS=160" are two; "PL R,AG=250" is one.
_SEVERAL = re.compile(r"(?<=\d)\s*,\s*")


def limits_of(texts: Iterable[str]) -> dict[str, int]:
    """`["AG=700,DS=160", "PL R,AG=250"]` as numbers. Raises `UsageError` BAD_MOST."""
    out = {}
    for text in texts:
        for part in _SEVERAL.split(text):
            role, _, number = part.partition("=")
            if not role.strip() or not number.strip().isdigit():
                raise UsageError(f"{part!r} is no role with a number.", code="BAD_MOST", hint="--most AG=700")
            out[role.strip()] = int(number)
    return out


def kind_of(shown: Shown, limits: Mapping[str, int]) -> str:
    """What a demonstration counts as: its role, or, of the planner, its plan ("PL QDS") where that has a limit."""
    plan = f"{shown.role} {shown.action.removeprefix('<workflow>').removesuffix('</workflow>')}"
    return plan if plan in limits else shown.role


def at_most(sources: Sequence[Sequence[Shown]], limits: Mapping[str, int], *, seed: int = 0) -> list[Shown]:
    """All demonstrations, but of a role with a limit only so many, in equal parts from the sources that have them.

    A planner that is shown what is common alone learns to write nothing else: "PL QDS" limits a single plan.
    """
    places: dict[str, list[list[int]]] = defaultdict(lambda: [[] for _ in sources])
    everything = [shown for source in sources for shown in source]
    at = 0
    for i, source in enumerate(sources):
        for shown in source:
            places[kind_of(shown, limits)][i].append(at)
            at += 1
    kept: set[int] = set()
    for role, by_source in places.items():
        room = limits.get(role, sum(map(len, by_source)))
        rng = random.Random(f"most {seed} {role}")
        waiting = sorted((rng.sample(found, len(found)) for found in by_source), key=len)
        for i, found in enumerate(waiting):
            share = room // (len(waiting) - i)  # what a small source leaves goes to the larger ones
            kept.update(found[:share])
            room -= min(share, len(found))
    return [everything[i] for i in sorted(kept)]


__all__ = ["at_most", "kind_of", "limits_of"]
