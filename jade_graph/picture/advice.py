"""What to try after a run that failed: one sentence by its code, the same wherever a run is shown.

Invariant: every code that the framework itself ends a run with has its own sentence; of every other code the command is
named that explains it. Nothing is advised that loses what was recorded.
"""

from __future__ import annotations

from jade_graph.types import Run

_FORK = "jade studio shows the run step by step and forks it there"
_NEXT = {
    "LIMIT_DEADLINE": "Give it more time, --set limits.deadline_s=600, or fewer runs at once: a large model on a CPU "
    "reads one prompt as slowly as many.",
    "LIMIT_TOKENS": "Raise --set limits.tokens=60000, or search for fewer passages, --set k=3: documents are most of a "
    "prompt.",
    "LIMIT_ROUNDS": f"Raise --set limits.rounds=12, or see why it went in circles: {_FORK}.",
    "LIMIT_STEPS": "Whoever drives the graph set a recursion_limit: raise it there, or call arun, ainvoke or stream of "
    "JadeGraph, which set one that suffices.",
    "LIMIT_DEPTH": "Allow sub-questions of sub-questions, --set limits.depth=3, or a preset that splits once.",
    "LIMIT_SUB_QUESTIONS": "Allow more, --set limits.sub_questions=24, or narrower splits, "
    "--set limits.decomposition_width=3.",
    "LIMIT_RETRIEVALS": "Allow more searches, --set limits.retrievals=32.",
    "PLAN_REJECTED": "Ask again with another seed (--seed 1), or answer with a plan of your own instead of a no.",
    "NO_ANSWER": f"See what the last role wrote: {_FORK}. A model too weak for its roles is taught by jade sft.",
    "NO_SUB_ANSWER": f"See which sub-question failed first: {_FORK}.",
    "NODE_ERROR": "The exception is your graph's own: its message is above, its traceback where the graph was called.",
    "ROLE_ERROR": "The exception is the role's: run its conformance suite (jade_graph.testing), which shows it alone.",
    "LOOP_ERROR": "The exception is the loop's: run its conformance suite (jade_graph.testing), which shows it alone.",
    "TOOL_ERROR": "The exception is the tool's: its message is above; a retriever is tried alone by jade search.",
    "CANCELLED": "Nothing was wrong with it: ask again. A time-out around the graph has to be longer than "
    "limits.deadline_s.",
    "REPLAY_DIVERGED": "Fork with the preset, the roles and the version that recorded the run.",
}


def next_step(run: Run) -> str | None:
    """What to try after a failed run, in a sentence; None for one that did not fail."""
    if run.status != "failed":
        return None
    code = run.error or "NO_ANSWER"
    return _NEXT.get(code, f"jade errors {code} says what it means and what helps.")


def advised() -> frozenset[str]:
    """The codes that have a sentence of their own."""
    return frozenset(_NEXT)
