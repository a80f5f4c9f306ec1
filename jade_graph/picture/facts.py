"""What a picture says about an action: its family, its name, what it came to, when it ran.

Invariant: pure functions of a run. Steps count actions in the order in which they ended, so that at step `s` exactly
`s` actions are done and those that overlapped in time are running together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jade_graph import plugins
from jade_graph.errors import JadeError
from jade_graph.scoring.metrics import token_f1
from jade_graph.types import Run, Status, Transition
from jade_graph.workflow.reading import in_words

Family = Literal["question", "planner", "executor", "tool", "outcome"]
State = Literal["pending", "running", "done", "fallback", "failed"]

_STOCK = {
    "PL": "Planner",
    "QDS": "Split, in sequence",
    "QDP": "Split, in parallel",
    "QR": "Rewrite query",
    "R": "Retrieve",
    "DS": "Select documents",
    "AG": "Answer",
    "AS": "Summarize",
}
_KINDS: dict[str, str] = {"PL": "planner", "QDS": "decomposer", "QDP": "decomposer", "AS": "summarizer"}


_ENDS = {
    "LIMIT_TOKENS": "no tokens were left for it",
    "LIMIT_DEADLINE": "out of time",
    "LIMIT_RETRIEVALS": "no searches were left",
}


class Span(NamedTuple):
    """The steps between which something runs: running from step `starts` on, over from step `ends` on."""

    starts: int
    ends: int


def kind_of(role: str) -> str:
    """ "planner", "decomposer", "executor" or "summarizer"; a role of another package is asked."""
    if role not in _KINDS:
        _KINDS[role] = str(getattr(_part(role), "kind", "executor"))
    return _KINDS[role]


def name_of(role: str) -> str:
    """What people call the role."""
    if role not in _STOCK:
        _STOCK[role] = str(getattr(_part(role), "name", "") or role)
    return _STOCK[role]


def _part(role: str) -> Any:
    try:
        return plugins.load("jade.roles", role) if role in plugins.names("jade.roles") else None
    except JadeError:
        return None


def family(t: Transition) -> Family:
    """Planner and decomposers decide what is done; executors do it; tools are no language model."""
    if t.finish_reason == "tool" or (not t.prompt_token_ids and not t.action_token_ids and t.role == "R"):
        return "tool"
    return "planner" if kind_of(t.role) in ("planner", "decomposer") else "executor"


def state_of(t: Transition) -> State:
    if t.error is not None and not t.error.startswith("LIMIT_RETRIEVALS"):
        return "failed"
    return "fallback" if t.fallback_used or t.violation or t.error else "done"


def is_last(t: Transition) -> bool:
    """Whether the action comes after the sub-questions."""
    return kind_of(t.role) == "summarizer"


def outcome(t: Transition) -> str:
    """What an action came to, in one line."""
    value: Any = t.parsed
    if t.error is not None and value is None:
        return _ENDS.get(t.error, t.error)
    if isinstance(value, dict) and "documents" in value:
        found = len(value["documents"])
        return f"{found} passage{'' if found == 1 else 's'} for “{' | '.join(value.get('queries', ()))}”"
    if t.role == "DS" and isinstance(value, list):
        return "keeps " + (", ".join(f"document {i}" for i in value) or "none")
    if isinstance(value, list) and kind_of(t.role) == "decomposer":
        return f"{len(value)} sub-question{'' if len(value) == 1 else 's'}"
    return t.action_text if value is None else in_words(value)


def trouble(t: Transition) -> str:
    """What went wrong with an action, in few words; empty for a good one."""
    told = []
    if t.error and t.error != outcome(t):
        told.append(t.error)
    if t.violation:
        told.append(t.violation + (" → fallback" if t.fallback_used else ""))
    if t.truncated:
        told.append("cut at its limit")
    return ", ".join(told)


def golds(run: Run) -> tuple[str, ...]:
    """The gold answers that were recorded with the run."""
    found = run.metadata.get("answers")
    return (found,) if isinstance(found, str) else tuple(map(str, found or ()))


def verdict(run: Run) -> str:
    """Whether the answer is right, where that is known; empty where it is not."""
    expected = golds(run)
    if not expected or run.status == "running":
        return ""
    f1 = token_f1(run.answer, expected)
    if f1 == 1.0:
        return "right"
    scored = "wrong" if not f1 else f"partly right, F1 {f1:.2f}"
    return f"{scored}: expected “{expected[0]}”"


def spans(run: Run) -> dict[int, Span]:
    """By `seq`. An action that took no time still has a step of its own."""
    ended = sorted(run.transitions, key=lambda t: (t.started_ms + t.latency_ms, t.seq))
    step = {t.seq: i for i, t in enumerate(ended, 1)}
    ends = [t.started_ms + t.latency_ms for t in ended]
    out: dict[int, Span] = {}
    for t in run.transitions:
        before = _count(ends, t.started_ms)
        out[t.seq] = Span(min(before, step[t.seq] - 1), step[t.seq])
    return out


def _count(ends: Sequence[float], at: float) -> int:
    """How many of the sorted ends are not after `at`."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if ends[middle] <= at else (low, middle)
    return low


def node_state(status: Status, error: str | None) -> State:
    if status is Status.FAILED or error:
        return "failed"
    return {Status.PENDING: "pending", Status.SOLVED: "done"}.get(status, "running")  # type: ignore[return-value]


def by_node(run: Run) -> Mapping[str, list[Transition]]:
    out: dict[str, list[Transition]] = {}
    for t in run.transitions:
        out.setdefault(t.trace_node, []).append(t)
    return out
