"""Activation patching: which part of a model, at which layer and which words, makes it decide as it does (2504.07898).

Invariant: the model is never copied or changed; hooks are taken away again, whatever happens. Recovery is a ratio of
measured logit differences and is never clipped.
"""

from __future__ import annotations

from jade_graph.patching.looking import SITES, Cost, Look, cost, look
from jade_graph.patching.pairs import Pair, make_pair
from jade_graph.patching.recovery import Cell, Site

__all__ = ["SITES", "Cell", "Cost", "Look", "Pair", "Site", "cost", "look", "make_pair"]
