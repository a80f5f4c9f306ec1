"""What the state machine moves: its input, output and shared state, and what a branch carries.

Invariant: every key of the shared state has a reducer that parallel branches cannot make ambiguous, and everything here
can be written into a checkpoint and read back by the allow-listed serializer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from typing_extensions import NotRequired, TypedDict  # noqa: UP035  schema export needs these before 3.12

from jade_graph.types import Counters, TraceNode
from jade_graph.workflow import blackboard


def _last(left: Any, right: Any) -> Any:
    """Reducer: the newer value; parallel branches write equal ones."""
    del left
    return right


def _most(left: int, right: int) -> int:
    """Reducer: numbers that only grow."""
    return max(left, right)


class Input(TypedDict):
    question: str
    question_id: NotRequired[str]
    run_id: NotRequired[str]
    seed: NotRequired[int]
    attempt: NotRequired[int]


class Output(TypedDict):
    run_id: str
    answer: str
    status: str
    error: str | None


class State(TypedDict):
    """The shared state. Every key has a reducer; `trace` is the blackboard, `traced` the run that it belongs to, `seq`
    the number of the next action, `versions` those of the backbone that the run leased: with the counters, what another
    process needs to go on from a checkpoint.
    """

    question: Annotated[str, _last]
    question_id: Annotated[str, _last]
    run_id: Annotated[str, _last]
    seed: Annotated[int, _last]
    attempt: Annotated[int, _last]
    seq: Annotated[int, _most]
    traced: Annotated[str, _last]
    versions: Annotated[tuple[str, ...], _last]
    trace: Annotated[Mapping[str, TraceNode], blackboard.merge_trace]
    counters: Annotated[Counters, blackboard.latest_counters]
    answer: Annotated[str, _last]
    status: Annotated[str, _last]
    error: Annotated[str | None, _last]


class Branch(TypedDict):
    """One round on its way through the executors: what a `Send` carries. Its memory lives as long as the round."""

    run_id: str
    question_id: str
    seed: int
    attempt: int
    seq: int
    versions: tuple[str, ...]
    counters: Counters
    root: str
    target: TraceNode
    siblings: tuple[tuple[str, str], ...]
    children: tuple[tuple[str, str], ...]
    round: int
    step: int
    plan: tuple[str, ...]
    memory: Mapping[str, Any]
