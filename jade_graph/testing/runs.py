"""Recorded runs made by hand, for tests of learners and of what feeds them.

Invariant: what is made here is what the engine records: same types, one log-probability an id, sampled rows of
trainable roles. Only the fields that learning reads can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jade_graph.scoring.rewards import Scored
from jade_graph.types import Run, Transition


@dataclass(frozen=True, slots=True)
class Act:
    """One action to be recorded. `local`: reward terms of its own."""

    role: str
    prompt: Sequence[int]
    action: Sequence[int]
    logprobs: Sequence[float]
    temperature: float = 1.0
    local: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the transition, `sampling` merged into the default one."""


def make_run(
    run_id: str,
    acts: Sequence[Act],
    outcome: float | None,
    *,
    question_id: str = "q",
    version: str = "v0",
) -> tuple[Run, Scored]:
    """A finished run with these actions, and its score (None: unscored)."""
    transitions = []
    for seq, act in enumerate(acts):
        own = dict(act.fields)
        sampling = {"temperature": act.temperature, "top_p": 1.0, "seed": 0, **own.pop("sampling", {})}
        values: dict[str, Any] = {
            "run_id": run_id,
            "question_id": question_id,
            "attempt": 0,
            "seq": seq,
            "round": 0,
            "step": seq,
            "depth": 0,
            "node": act.role,
            "trace_node": "0",
            "role": act.role,
            "agent_trainable": True,
            "plan": "",
            "prompt_messages": (),
            "prompt_token_ids": tuple(act.prompt),
            "action_text": "",
            "action_token_ids": tuple(act.action),
            "old_logprobs": tuple(act.logprobs),
            "sampling": sampling,
            "finish_reason": "stop",
            "truncated": False,
            "parsed": None,
            "valid": True,
            "violation": None,
            "fallback_used": False,
            "counters_before": {},
            "counters_after": {},
            "latency_ms": 0.0,
            "backbone_version": version,
            "graph_hash": "",
            "corpus_id": "",
        }
        transitions.append(Transition(**{**values, **own}))
    run = Run(run_id, "", question_id, "toy", 0, status="answered", transitions=tuple(transitions))
    terms = None if outcome is None else {"outcome": outcome}
    return run, Scored(run_id, terms, tuple(dict(a.local) for a in acts))
