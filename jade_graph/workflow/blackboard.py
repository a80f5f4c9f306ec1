"""The blackboard of a run: its trace of questions, and the pure decisions over it.

Invariant: nothing here awaits or mutates. From any trace, `choose` says what to start, summarise or give up next, and
each choice brings the trace closer to its end, so a run cannot go round for ever. Source: JADE algorithm 1, with the
status that the paper's version lacks (a decomposed node is answered once its children are).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jade_graph.types import Counters, Order, Status, TraceNode, path
from jade_graph.workflow.references import resolve_references

ROOT = "0"
UNKNOWN = "unknown"

Trace = Mapping[str, TraceNode]


# --- reducers ---------------------------------------------------------------------------------------------------------
def merge_trace(left: Trace, right: Trace) -> Trace:
    """Reducer of the trace: parallel branches each write their own nodes."""
    return {**left, **right}


def latest_counters(left: Counters, right: Counters) -> Counters:
    """Reducer of the counters: they only grow, and each branch reports the run's totals, so the larger is the newer."""
    return Counters(
        max(left.rounds, right.rounds),
        max(left.sub_questions, right.sub_questions),
        max(left.retrievals, right.retrievals),
        max(left.calls, right.calls),
        max(left.prompt_tokens, right.prompt_tokens),
        max(left.action_tokens, right.action_tokens),
    )


# --- decisions --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Choice:
    """What to do next: nodes to `start` a round on, to `summarize`, and `updates` to the trace that go with it.

    `finished`: the root is settled and nothing is running. Neither started nor finished means: wait for a branch.
    """

    start: tuple[TraceNode, ...] = ()
    summarize: tuple[TraceNode, ...] = ()
    updates: Trace = ()  # type: ignore[assignment]
    finished: bool = False


def choose(trace: Trace, *, rounds_left: int, fatal: str | None = None) -> Choice:
    """The next step of a run.

    Args:
        rounds_left: how many more rounds may start; pending nodes beyond that fail with LIMIT_ROUNDS.
        fatal: an error that ends the run: nothing new is started, what is pending fails with it.
    """
    now = dict(trace)
    starts: list[TraceNode] = []
    summaries: list[TraceNode] = []
    settled = False
    while not settled:  # settling a child may settle its parent: at most once per level
        settled = True
        for node in _deepest_first(now):
            if node.status is Status.PENDING and (fatal or (_ready(node, now) and rounds_left <= len(starts))):
                now[node.id] = replace(node, status=Status.FAILED, error=fatal or "LIMIT_ROUNDS")
                settled = False
            elif node.status is Status.PENDING and _ready(node, now):
                started = replace(node, status=Status.RUNNING, resolved=resolve_in(node, now))
                now[node.id] = started
                starts.append(started)
            elif node.status is Status.EXPANDED and all(now[c].finished for c in node.children):
                solved = any(now[c].status is Status.SOLVED for c in node.children)
                if fatal or not solved:
                    error = fatal or next((e for c in node.children if (e := now[c].error)), "NO_SUB_ANSWER")
                    now[node.id] = replace(node, status=Status.FAILED, error=error)
                    settled = False
                else:
                    now[node.id] = replace(node, status=Status.RUNNING)
                    summaries.append(now[node.id])
    running = any(node.status is Status.RUNNING for node in now.values())
    updates = {key: node for key, node in now.items() if trace.get(key) is not node}
    return Choice(_in_order(starts), _in_order(summaries), updates, finished=now[ROOT].finished and not running)


def resolve_in(node: TraceNode, trace: Trace) -> str:
    """The question with `#k` replaced by the answers of the siblings before it (serial order only)."""
    if node.parent is None or trace[node.parent].order != "serial":
        return node.question
    return resolve_references(node.question, [trace[s].answer or UNKNOWN for s in _before(node, trace)])


def siblings_of(node: TraceNode, trace: Trace) -> tuple[tuple[str, str], ...]:
    """Solved (sub-question, answer) pairs that a serial sub-question builds on."""
    if node.parent is None or trace[node.parent].order != "serial":
        return ()
    before = (trace[s] for s in _before(node, trace))
    return tuple((s.text, s.answer) for s in before if s.status is Status.SOLVED)


def children_of(node: TraceNode, trace: Trace) -> tuple[tuple[str, str], ...]:
    """(sub-question, answer) pairs for the summarizer; a failed one says "unknown"."""
    nodes = (trace[c] for c in node.children)
    return tuple((c.text, c.answer if c.status is Status.SOLVED else UNKNOWN) for c in nodes)


# --- what actions do --------------------------------------------------------------------------------------------------
def expand(node: TraceNode, questions: Sequence[str], order: Order, plan: str) -> dict[str, TraceNode]:
    """The node decomposed: itself EXPANDED, and one PENDING child per sub-question."""
    ids = tuple(f"{node.id}.{i}" for i in range(1, len(questions) + 1))
    parent = replace(node, status=Status.EXPANDED, order=order, children=ids, plan=plan)
    children = (
        TraceNode(id=i, question=text, parent=node.id, depth=node.depth + 1)
        for i, text in zip(ids, questions, strict=True)
    )
    return {node.id: parent} | {child.id: child for child in children}


def solve(node: TraceNode, answer: str, plan: str) -> dict[str, TraceNode]:
    return {node.id: replace(node, status=Status.SOLVED, answer=answer, plan=plan)}


def fail(node: TraceNode, error: str, plan: str) -> dict[str, TraceNode]:
    return {node.id: replace(node, status=Status.FAILED, error=error, plan=plan)}


# --- order ------------------------------------------------------------------------------------------------------------
def _in_order(nodes: Sequence[TraceNode]) -> tuple[TraceNode, ...]:
    return tuple(sorted(nodes, key=lambda n: path(n.id)))


def _deepest_first(trace: Trace) -> list[TraceNode]:
    return sorted(trace.values(), key=lambda n: (-n.depth, path(n.id)))


def _before(node: TraceNode, trace: Trace) -> tuple[str, ...]:
    siblings = trace[node.parent or ROOT].children
    return siblings[: siblings.index(node.id)]


def _ready(node: TraceNode, trace: Trace) -> bool:
    if node.parent is None or trace[node.parent].order == "parallel":
        return True
    return all(trace[s].finished for s in _before(node, trace))
