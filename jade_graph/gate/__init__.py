"""The gate between a challenger and the alias `champion`: policy, verdict, promotion.

Invariant: a champion is made here by evidence, or past the gate with a reason that is logged. Importing this package
loads nothing; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.gate.policy import Policy
    from jade_graph.gate.promoting import Outcome, promote
    from jade_graph.gate.trial import Trial, load_evidence, measure
    from jade_graph.gate.verdict import Finding, Verdict, judge, needed

_HOME = {
    **{"Policy": "policy", "Outcome": "promoting", "promote": "promoting"},
    **{"Trial": "trial", "load_evidence": "trial", "measure": "trial"},
    **{"Finding": "verdict", "Verdict": "verdict", "judge": "verdict", "needed": "verdict"},
}

__all__ = ["Finding", "Outcome", "Policy", "Trial", "Verdict", "judge", "load_evidence", "measure", "needed", "promote"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jade_graph.gate.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
