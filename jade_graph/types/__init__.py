"""The map: every word the other modules speak.

Invariant: these are plain values and protocols. Nothing here does I/O, holds a model, or knows LangGraph. What lower
rooms need of upper ones (leasing a version, recording a run, telling an event) is a protocol among them.

    data      Question, Passage, Retriever       what is asked, what is read
    trace     TraceNode, Plan, View, Limits ..   the blackboard of one run
    models    Backbone, Completion, Sampling ..  token ids in, token ids and log-probabilities out
    roles     Role, Tool, Loop, Preset ..        who acts, and in which order
    records   Transition, Run, Event ..          what a run leaves, and who writes it down
"""

from jade_graph.types.data import Passage, Question, Reranking, Retriever, SubQuestion
from jade_graph.types.models import (
    Backbone,
    Completion,
    FinishReason,
    Lease,
    Leasing,
    Message,
    Sampling,
    Thought,
    Watch,
)
from jade_graph.types.records import (
    SCHEMA_VERSION,
    Claims,
    Event,
    Recorder,
    Remembers,
    Run,
    Runner,
    RunStatus,
    Transition,
)
from jade_graph.types.roles import END, Alternative, Chooses, Edge, Effect, Loop, Parsed, Preset, Role, RoleKind, Tool
from jade_graph.types.trace import Ask, Counters, Limits, Order, Plan, Status, TraceNode, View, path

__all__ = [
    "END",
    "SCHEMA_VERSION",
    "Alternative",
    "Ask",
    "Backbone",
    "Chooses",
    "Claims",
    "Completion",
    "Counters",
    "Edge",
    "Effect",
    "Event",
    "FinishReason",
    "Lease",
    "Leasing",
    "Limits",
    "Loop",
    "Message",
    "Order",
    "Parsed",
    "Passage",
    "Plan",
    "Preset",
    "Question",
    "Recorder",
    "Remembers",
    "Reranking",
    "Retriever",
    "Role",
    "RoleKind",
    "Run",
    "RunStatus",
    "Runner",
    "Sampling",
    "Status",
    "SubQuestion",
    "Thought",
    "Tool",
    "TraceNode",
    "Transition",
    "View",
    "Watch",
    "path",
]
