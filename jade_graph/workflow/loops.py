"""Loops: workflows in which the state decides who acts next, next to plans, in which a planner's text does.

Invariant: pure. A loop names its parts and every edge that a run may take; edges within a turn form no circle, and
every turn costs a round, so that a run cannot go round for ever. What a part may not do next is found here and ends the
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jade_graph.errors import GraphError
from jade_graph.types import END, Loop, Role, Tool, View


def code_of(part: str | Role | Tool) -> str:
    return part if isinstance(part, str) else part.code


def codes(loop: Loop) -> tuple[str, ...]:
    """The codes of its parts, the first to act first."""
    return tuple(code_of(part) for part in loop.parts)


def follows(loop: Loop) -> dict[str, tuple[str, ...]]:
    """Who may follow whom, in this turn or in a new one; the end left out."""
    out: dict[str, dict[str, None]] = {code: {} for code in codes(loop)}
    for before, after in (*loop.edges, *loop.turns):
        if after != END:
            out[before][after] = None
    return {code: tuple(after) for code, after in out.items()}


def check(loop: Loop) -> None:
    """Raise `GraphError` GRAPH_LOOP for a loop that could go round within a turn, never end, or is wrongly wired."""
    known = codes(loop)
    doubled = next((c for i, c in enumerate(known) if c in known[:i]), None)
    if not known or doubled is not None:
        raise _wrong(loop, f"the part {doubled!r} stands in it twice" if known else "it has no parts")
    for before, after in (*loop.edges, *loop.turns):
        for code in (before, after):
            if code not in known and not (code == END and code == after):
                raise _wrong(loop, f"the edge {before} -> {after} names {code!r}, which is none of its parts", known)
    if stuck := next((c for c in known if not any(before == c for before, _ in (*loop.edges, *loop.turns))), None):
        raise _wrong(loop, f"no edge leads on from {stuck!r}", hint=f'("{stuck}", END)')
    lost = set(known) - set(_reached(loop))
    if lost:
        raise _wrong(loop, f"no way leads from {known[0]!r} to {min(lost)!r}")
    if any(after == END for _, after in loop.turns):
        raise _wrong(loop, "the end begins no turn: it stands among the edges", hint="edges, not turns")
    if not any(after == END for _, after in loop.edges):
        raise _wrong(loop, "no edge leads to the end", hint=f'("{known[-1]}", END)')
    if circle := _circle(loop):
        text = " -> ".join(circle)
        raise _wrong(loop, f"the parts {text} go round within a turn", hint="move the edge that begins a turn to turns")


@dataclass(frozen=True, slots=True)
class Step:
    """What follows a part: `after`, in a new `turn` or not; at END the `answer`; or an `error` that ends the question,
    and with a `message` the whole run.
    """

    after: str = END
    turn: bool = False
    answer: str = ""
    error: str = ""
    message: str = ""


def step(loop: Loop, code: str, view: View, *, last: bool = False) -> Step:
    """Ask the loop what follows; where it begins a turn and no round is left, the loop ends. Never raises.

    `last`: the graph has no step left for another part.
    """
    try:
        after = loop.after(code, view)
        turn = (code, after) in loop.turns
        if not turn and (code, after) not in loop.edges:
            told = f"loop {loop.name!r} went from {code} to {after!r}, and has no such edge."
            return Step(error="LOOP_ERROR", message=told)
        spent = view.counters.rounds >= view.limits.rounds
        limit = last or (turn and spent)
        if after != END and not limit:
            return Step(after, turn)
        answer = loop.answer(view)
        if answer.strip():
            return Step(answer=answer)
        return Step(error="LIMIT_STEPS" if last else "LIMIT_ROUNDS" if limit else "NO_ANSWER")
    except Exception as failure:  # a third party's loop: its error ends this run, not the process
        told = f"loop {loop.name!r} raised {type(failure).__name__}: {failure}"
        return Step(error="LOOP_ERROR", message=told)


def _reached(loop: Loop) -> Iterator[str]:
    onward, waiting, seen = follows(loop), [codes(loop)[0]], set[str]()
    while waiting:
        code = waiting.pop()
        if code not in seen:
            seen.add(code)
            waiting += onward[code]
            yield code


def _circle(loop: Loop) -> list[str]:
    """Parts that follow each other in a circle without a new turn; empty: there is none."""
    onward: Mapping[str, list[str]] = {
        code: [after for before, after in loop.edges if before == code and after != END] for code in codes(loop)
    }
    done: set[str] = set()

    def search(code: str, path: list[str]) -> list[str]:
        if code in path:
            return [*path[path.index(code) :], code]
        if code in done:
            return []
        found = next((circle for after in onward[code] if (circle := search(after, [*path, code]))), [])
        done.add(code)
        return found

    return next((circle for code in onward if (circle := search(code, []))), [])


def _wrong(loop: Loop, why: str, known: tuple[str, ...] = (), hint: str = "") -> GraphError:
    return GraphError(f"the loop {loop.name!r} cannot run: {why}.", code="GRAPH_LOOP", known=known, hint=hint)
