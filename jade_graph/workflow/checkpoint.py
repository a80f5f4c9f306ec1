"""LangGraph's checkpoints: what they can bring back, and when they are written.

Invariant: a checkpoint can bring back our own plain values and LangGraph's safe types and nothing else. The allow-list
is set here, in code, so that a checkpoint read from a shared store cannot import or call anything (CVE-2026-28277).
"""

from __future__ import annotations

from typing import Any, get_args

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Durability

from jade_graph.errors import unknown
from jade_graph.types import Counters, Passage, Plan, Status, TraceNode

ALLOWED = (Counters, Passage, Plan, Status, TraceNode)


class SafeSerializer(JsonPlusSerializer):
    """A serializer with an allow-list; `secured` leaves one that the caller made alone."""


def safe_serializer(*more: type) -> SafeSerializer:
    """A serializer that restores the graph's own types; `more` are those a third party's role keeps in its memory."""
    names = [(kind.__module__, kind.__qualname__) for kind in (*ALLOWED, *more)]
    # By the map's own name, too: so they were written when `types` was one module.
    names += [("jade_graph.types", kind.__qualname__) for kind in ALLOWED]
    return SafeSerializer(pickle_fallback=False, allowed_msgpack_modules=names)


def secured(checkpointer: Any) -> Any:
    """The checkpointer with `safe_serializer` set, unless it has one with types of the caller's own.

    None and True (inherit from the parent graph) pass through.
    """
    if hasattr(checkpointer, "serde") and not isinstance(checkpointer.serde, SafeSerializer):
        checkpointer.serde = safe_serializer()
    return checkpointer


def durable(given: Durability | None, checkpointer: Any) -> Durability | None:
    """When a run is written: LangGraph's mode; None where there is nothing to write to.

    Raises `UsageError` BAD_DURABILITY.
    """
    known = get_args(Durability)
    if given is not None and given not in known:
        raise unknown("durability", given, known, code="BAD_DURABILITY")
    return given if checkpointer is not None else None
