"""Whether a model is too weak for its roles: said by what shows its figures, with what to do next.

Invariant: it is told from recorded actions alone, never from a model's name; tools' actions do not count.
"""

from __future__ import annotations

from jade_graph.types import Run

TOO_MANY = 0.5
"""More than this share of illegal actions: roles do not do their work, their fallbacks do."""


def of_run(run: Run) -> str:
    """What to say of one run; empty where its model could do its work."""
    return told(run.illegal_actions, run.counters.calls)


def told(illegal: float, actions: float, *, constrained: bool = False) -> str:
    """What to say of so many illegal actions; empty where they are at most half, or there is none.

    Args:
        constrained: plans were constrained already, so that is no advice.
    """
    if not actions or illegal <= TOO_MANY * actions:
        return ""
    return _said(f"{illegal:.0f} of {actions:.0f}", constrained)


def of_share(illegal: float) -> str:
    """The same of a share of illegal actions, in [0, 1]."""
    return _said(f"{illegal:.0%} of the", False) if illegal > TOO_MANY else ""


def _said(how_many: str, constrained: bool) -> str:
    steps = "" if constrained else "--set constrained=true (plans are legal then), "
    return (
        f"{how_many} actions were illegal: this model does not write what its roles ask of it, and "
        f"fallbacks answered instead. Next: {steps}jade sft (teach it the roles), or a larger --backbone"
    )


__all__ = ["TOO_MANY", "of_run", "of_share", "told"]
