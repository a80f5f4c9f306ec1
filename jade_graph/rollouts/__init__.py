"""Rollouts: many recorded runs of one policy, in one process or several.

Invariant: importing this package loads nothing; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.rollouts.collecting import Rollout, collect, tally
    from jade_graph.rollouts.crew import Workers

_HOME = {"Rollout": "collecting", "Workers": "crew", "collect": "collecting", "tally": "collecting"}

__all__ = ["Rollout", "Workers", "collect", "tally"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jade_graph.rollouts.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
