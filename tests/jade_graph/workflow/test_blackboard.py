"""Decisions over the trace: order, recursion, failure, and that they always end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jade_graph.types import Counters, Order, Status, TraceNode
from jade_graph.workflow import blackboard
from jade_graph.workflow.blackboard import ROOT, choose, expand, fail, merge_trace, solve

ROOT_NODE = TraceNode(ROOT, "Which film of the director of X is older?")


def started(trace: dict[str, TraceNode], rounds_left: int = 99) -> dict[str, TraceNode]:
    return {**trace, **choose(trace, rounds_left=rounds_left).updates}


def expanded(order: Order, *questions: str) -> dict[str, TraceNode]:
    trace = started({ROOT: ROOT_NODE})
    return {**trace, **expand(trace[ROOT], questions, order, "QDS")}


def test_the_root_starts_first() -> None:
    choice = choose({ROOT: ROOT_NODE}, rounds_left=5)
    assert [n.id for n in choice.start] == [ROOT]
    assert choice.updates[ROOT].status is Status.RUNNING
    assert not choice.finished


def test_parallel_children_start_at_once_and_serial_ones_in_turn() -> None:
    assert [n.id for n in choose(expanded("parallel", "a?", "b?"), rounds_left=9).start] == ["0.1", "0.2"]
    trace = expanded("serial", "who made X?", "when was #1 born?")
    assert [n.id for n in choose(trace, rounds_left=9).start] == ["0.1"]
    trace = started(trace)
    assert choose(trace, rounds_left=9).start == ()  # waits
    trace = {**trace, **solve(trace["0.1"], "Ann Lee", "R,AG")}
    (second,) = choose(trace, rounds_left=9).start
    assert second.text == "when was Ann Lee born?"
    assert blackboard.siblings_of(second, trace) == (("who made X?", "Ann Lee"),)


def test_a_failed_sibling_does_not_block_and_reads_unknown() -> None:
    trace = started(expanded("serial", "who?", "when was #1 born?"))
    trace = {**trace, **fail(trace["0.1"], "ROLE_ERROR", "R,AG")}
    (second,) = choose(trace, rounds_left=9).start
    assert second.text == "when was unknown born?"
    trace = started(trace)
    trace = {**trace, **solve(trace["0.2"], "1950", "R,AG")}
    (root,) = choose(trace, rounds_left=9).summarize
    assert blackboard.children_of(root, trace) == (("who?", "unknown"), ("when was unknown born?", "1950"))


def test_all_children_failed_fails_the_parent_with_their_reason() -> None:
    trace = started(expanded("parallel", "a?", "b?"))
    trace = {**trace, **fail(trace["0.1"], "E1", ""), **fail(trace["0.2"], "E2", "")}
    choice = choose(trace, rounds_left=9)
    assert choice.finished
    assert choice.updates[ROOT].error == "E1"


def test_no_rounds_left_fails_what_is_ready_and_summarizes_what_is_solved() -> None:
    trace = started(expanded("serial", "a?", "b?", "c?"))
    trace = {**trace, **solve(trace["0.1"], "x", "R,AG")}
    choice = choose(trace, rounds_left=0)
    assert choice.start == ()
    assert choice.updates["0.2"].error == choice.updates["0.3"].error == "LIMIT_ROUNDS"
    assert [n.id for n in choice.summarize] == [ROOT]


def test_a_fatal_error_waits_for_running_branches_then_finishes() -> None:
    trace = started(expanded("parallel", "a?", "b?"))
    assert not choose(trace, rounds_left=9, fatal="LIMIT_DEADLINE").finished
    trace = {**trace, **fail(trace["0.1"], "LIMIT_DEADLINE", ""), **fail(trace["0.2"], "LIMIT_DEADLINE", "")}
    choice = choose(trace, rounds_left=9, fatal="LIMIT_DEADLINE")
    assert choice.finished
    assert choice.updates[ROOT].error == "LIMIT_DEADLINE"


def test_a_solved_root_is_not_failed_by_a_late_fatal_error() -> None:
    trace = started({ROOT: ROOT_NODE})
    trace = {**trace, **solve(trace[ROOT], "yes", "AG")}
    choice = choose(trace, rounds_left=0, fatal="LIMIT_DEADLINE")
    assert choice.finished
    assert not choice.updates


@given(st.data())
def test_every_run_over_the_blackboard_ends(data: st.DataObject) -> None:
    """Random actions: whatever branches do, in whatever order, select reaches the end in bounded steps."""
    trace: dict[str, TraceNode] = {ROOT: ROOT_NODE}
    rounds_left, steps = data.draw(st.integers(1, 8)), 0
    max_depth = 3
    while True:
        steps += 1
        assert steps < 500
        fatal = "BOOM" if data.draw(st.integers(0, 30)) == 0 else None
        choice = choose(trace, rounds_left=rounds_left, fatal=fatal)
        rounds_left -= len(choice.start)
        assert rounds_left >= 0
        trace = merge_trace(trace, choice.updates)
        if choice.finished:
            break
        running = [n for n in trace.values() if n.status is Status.RUNNING]
        assert running, "neither finished nor anything running: the run would hang"
        node = data.draw(st.sampled_from(running))
        action = data.draw(st.sampled_from(["solve", "fail", "expand"]))
        if action == "expand" and node.depth < max_depth and not node.children:
            count = data.draw(st.integers(1, 3))
            order = data.draw(st.sampled_from(["serial", "parallel"]))
            trace = merge_trace(trace, expand(node, [f"q{i} #1?" for i in range(count)], order, "QDS"))
        elif action == "fail":
            trace = merge_trace(trace, fail(node, "E", ""))
        else:
            trace = merge_trace(trace, solve(node, "a", ""))
    assert trace[ROOT].finished
    assert not any(n.status is Status.RUNNING for n in trace.values())


def test_counters_reducer_keeps_the_newest_totals() -> None:
    older, newer = Counters(1, 0, 1, 2, 10, 5), Counters(1, 2, 1, 3, 20, 9)
    assert blackboard.latest_counters(older, newer) == blackboard.latest_counters(newer, older) == newer


def test_paths_sort_as_a_person_reads() -> None:
    ids = ["0.10", "0.2", "0", "0.2.1"]
    assert sorted(ids, key=blackboard.path) == ["0", "0.2", "0.2.1", "0.10"]


def test_expand_and_solve_touch_nothing_else() -> None:
    node = replace(ROOT_NODE, status=Status.RUNNING)
    nodes = expand(node, ["a?", "b?"], "parallel", "QDP")
    assert nodes[ROOT].children == ("0.1", "0.2")
    assert nodes["0.2"] == TraceNode("0.2", "b?", parent=ROOT, depth=1)
    assert node.status is Status.RUNNING
