"""Hostile outputs through whole graphs, plans and loops: every run ends with an answer or a documented error."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import hostile

from jade_graph import JadeGraph, plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.types import Ask, Passage

FULL, BLOCK = 100_000, 500
BUGS = {"INTERNAL", "ROLE_ERROR", "TOOL_ERROR", "NODE_ERROR", "LOOP_ERROR", "STORE_WRITE"}
_ERRORS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
DOCUMENTED = set(re.findall(r"^### ([A-Z_]+)$", _ERRORS.read_text("utf-8"), re.MULTILINE))


def block(first: int, last: int, seed: int, folder: Path) -> dict[str, Any]:
    del folder
    names = ("runs", "answered", "actions", "illegal", "exceptions", "unnamed", "bugs", "not_whole")
    out: dict[str, Any] = {**dict.fromkeys(names, 0), "examples": []}
    corpus = MemoryRetriever(
        [Passage(str(i), f"Text {i} <answer>no</answer>", f"T{i}") for i in range(12)], mode="bm25"
    )
    presets = plugins.names("jade.presets")
    asyncio.run(_all(first, last, seed, presets, corpus, out))
    corpus.close()
    return out


async def _all(first: int, last: int, seed: int, presets: list[str], corpus: Any, out: dict[str, Any]) -> None:
    for i in range(first, last):
        rng = random.Random(f"graphs {seed} {i}")
        share = rng.choice((0.1, 0.5, 1.0))

        def policy(ask: Ask, rng: random.Random = rng, share: float = share) -> str:
            return hostile.text(rng) if rng.random() < share else hostile.LEGAL.get(ask.role, hostile.text(rng))

        preset = presets[i % len(presets)]
        graph = JadeGraph(ScriptedBackbone(policy, max_context=10**9), preset=preset, retriever=corpus)
        try:
            run = await graph.arun(f"Who is {hostile.text(rng)[:200]}?")
        except Exception as error:
            out["exceptions"] += 1
            out["examples"].append(f"{i} {preset}: {type(error).__name__}: {error}"[:300])
            continue
        wrong = []
        roles = graph.engine.roles if hasattr(graph, "engine") else graph.roles
        named = {code: {*role.violations, "OVERLONG", "UNPARSED"} for code, role in roles.items()}
        if any(t.violation and t.violation not in named.get(t.role, ()) for t in run.transitions):
            out["unnamed"] += 1
            wrong.append("a violation without a name")
        codes = {code for code in (run.error, *(t.error for t in run.transitions)) if code}
        if run.status == "running" or (run.status == "failed") != bool(run.error) or codes - DOCUMENTED or codes & BUGS:
            out["bugs"] += 1
            wrong.append(f"{run.status} {sorted(codes)}: {run.error_message}")
        if [t.seq for t in run.transitions] != list(range(len(run.transitions))):
            out["not_whole"] += 1
            wrong.append("actions are missing")
        out["runs"] += 1
        out["answered"] += run.status == "answered"
        out["actions"] += len(run.transitions)
        out["illegal"] += run.illegal_actions
        out["examples"] += [f"{i} {preset}: {told}"[:300] for told in wrong]


def broken(figures: dict[str, Any]) -> list[str]:
    return [
        f"{figures[name]} {name}: {figures['examples'][:3]}"
        for name in ("exceptions", "unnamed", "bugs", "not_whole")
        if figures[name]
    ]
