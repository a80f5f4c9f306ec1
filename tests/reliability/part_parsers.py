"""Hostile outputs through every role's parser: no exception, no violation without a name, nothing slow."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import hostile

from jade_graph import plugins
from jade_graph.testing.roles import views
from jade_graph.workflow.reading import checked, read

FULL, BLOCK = 1_000_000, 20_000
MOST_MS = 5.0
ENGINE = {"OVERLONG", "UNPARSED"}


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del folder
    roles = [plugins.load("jade.roles", code) for code in plugins.names("jade.roles")]
    roles = [role for role in roles if hasattr(role, "parse")]
    seen, named = views(), {role.code: {*role.violations, *ENGINE} for role in roles}
    out = {"outputs": 0, "violations": 0, "exceptions": 0, "unnamed": 0, "slow": 0, "most_ms": 0.0, "examples": []}
    for i in range(first, last):
        rng = random.Random(f"parsers {seed} {i}")
        role, view, text = rng.choice(roles), rng.choice(seen), hostile.text(rng)
        began = time.thread_time()  # of this thread: a busy machine is not a slow parser
        try:
            parsed = read(role, text, view)
            took = 1000 * (time.thread_time() - began)
            for _ in range(
                3 if took > MOST_MS else 0
            ):  # a collection of garbage is no slow parser: slow is always slow
                began = time.thread_time()
                read(role, text, view)
                took = min(took, 1000 * (time.thread_time() - began))
            checked(role.effect(parsed.value, view), role, view)
        except Exception as error:
            out["exceptions"] += 1
            out["examples"].append(f"{i} {role.code}: {type(error).__name__}: {error}"[:300])
            continue
        unnamed = parsed.violation is not None and parsed.violation not in named[role.code]
        out["outputs"] += 1
        out["violations"] += parsed.violation is not None
        out["unnamed"] += unnamed
        out["slow"] += took > MOST_MS
        out["most_ms"] = max(out["most_ms"], round(took, 3))
        if unnamed or took > MOST_MS:
            out["examples"].append(f"{i} {role.code}: {parsed.violation}, {took:.1f} ms, {len(text)} characters")
    return out


def broken(figures: dict[str, Any]) -> list[str]:
    return [
        f"{figures[name]} {name}: {figures['examples'][:3]}"
        for name in ("exceptions", "unnamed", "slow")
        if figures[name]
    ]
