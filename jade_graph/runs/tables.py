"""The tables of the run store, and how records become rows and back.

Invariant: a row holds exactly what the record held, but for text that no database holds (`text.clean`). Token ids are
packed int32, log-probabilities packed float32 as the backbone computed them; nothing is re-derived from text.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from jade_graph.runs.text import String, Text, clean
from jade_graph.types import Counters, Message, Run, Status, TraceNode, Transition

metadata = sa.MetaData()

info = sa.Table(
    "jade_store",
    metadata,
    sa.Column("key", String(40), primary_key=True),
    sa.Column("value", String(200), nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("question", Text, nullable=False),
    sa.Column("question_id", String(200), nullable=False, index=True),
    sa.Column("preset", String(80), nullable=False, index=True),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("status", String(16), nullable=False, index=True),
    sa.Column("answer", Text, nullable=False),
    sa.Column("error", String(80)),
    sa.Column("error_message", Text, nullable=False),
    sa.Column("plan", String(200), nullable=False),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("sub_questions", sa.Integer, nullable=False),
    sa.Column("retrievals", sa.Integer, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("action_tokens", sa.Integer, nullable=False),
    sa.Column("illegal_actions", sa.Integer, nullable=False),
    sa.Column("backbone_version", String(200), nullable=False),
    sa.Column("graph_hash", String(64), nullable=False),
    sa.Column("corpus_id", String(200), nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False, index=True),
    sa.Column("wall_ms", sa.Float(53), nullable=False),
    sa.Column("metadata", Text, nullable=False),
)

trace_nodes = sa.Table(
    "trace_nodes",
    metadata,
    sa.Column("run_id", String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("id", String(200), primary_key=True),
    sa.Column("question", Text, nullable=False),
    sa.Column("parent", String(200)),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("status", String(16), nullable=False),
    sa.Column("resolved", Text, nullable=False),
    sa.Column("answer", Text, nullable=False),
    sa.Column("plan", String(200), nullable=False),
    sa.Column("order", String(16)),
    sa.Column("children", Text, nullable=False),
    sa.Column("error", String(80)),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("run_id", String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("question_id", String(200), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("node", String(40), nullable=False),
    sa.Column("trace_node", String(200), nullable=False),
    sa.Column("role", String(40), nullable=False),
    sa.Column("agent_trainable", sa.Boolean, nullable=False),
    sa.Column("plan", String(200), nullable=False),
    sa.Column("prompt_messages", Text, nullable=False),
    sa.Column("prompt_token_ids", sa.LargeBinary, nullable=False),
    sa.Column("action_text", Text, nullable=False),
    sa.Column("action_token_ids", sa.LargeBinary, nullable=False),
    sa.Column("old_logprobs", sa.LargeBinary, nullable=False),
    sa.Column("sampling", Text, nullable=False),
    sa.Column("finish_reason", String(16), nullable=False),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sa.Column("prompt_cut", sa.Boolean, nullable=False),
    sa.Column("parsed", Text, nullable=False),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("violation", String(80)),
    sa.Column("fallback_used", sa.Boolean, nullable=False),
    sa.Column("rewards", Text, nullable=False),
    sa.Column("reward", sa.Float(53)),
    sa.Column("value", sa.Float(53)),
    sa.Column("advantage", sa.Float(53)),
    sa.Column("return", sa.Float(53), key="return_"),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("counters_before", Text, nullable=False),
    sa.Column("counters_after", Text, nullable=False),
    sa.Column("started_ms", sa.Float(53), nullable=False),
    sa.Column("latency_ms", sa.Float(53), nullable=False),
    sa.Column("queue_ms", sa.Float(53), nullable=False),
    sa.Column("backbone_version", String(200), nullable=False),
    sa.Column("graph_hash", String(64), nullable=False),
    sa.Column("corpus_id", String(200), nullable=False),
    sa.Column("error", String(80)),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", String(200), primary_key=True),
    sa.Column("started_at", sa.Float(53), nullable=False),
    sa.Column("manifest", Text, nullable=False),
)

# Which runs a rollout has, those too that have not begun yet.
rollout_runs = sa.Table(
    "rollout_runs",
    metadata,
    sa.Column("run_id", String(64), primary_key=True),
    sa.Column("rollout_id", String(200), nullable=False, index=True),
)

# What users said about runs; a store made before there was any gets the table when it is opened.
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", String(64), primary_key=True),
    sa.Column("run_id", String(64), nullable=False, index=True),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("rating", sa.Float(53)),
    sa.Column("clicked", Text, nullable=False),
    sa.Column("used", Text, nullable=False),
    sa.Column("comment", Text, nullable=False),
    sa.Column("source", String(80), nullable=False),
)

# What judges said of the passages of a run's searches (`runs.judgements`); made when an older store is opened.
judgements = sa.Table(
    "judgements",
    metadata,
    sa.Column("run_id", String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("judge", String(64), primary_key=True),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("query", Text, nullable=False),
    sa.Column("labels", Text, nullable=False),
    sa.Column("about", Text, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("unreadable", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
)

_COUNTERS = tuple(f.name for f in fields(Counters))
_NODE = tuple(f.name for f in fields(TraceNode))
_RUN = tuple(
    f.name for f in fields(Run) if f.name not in ("trace", "transitions", "counters", "metadata", "record_error")
)
_JSON = ("sampling", "parsed", "rewards", "counters_before", "counters_after")
_PACKED = {"prompt_token_ids": "i", "action_token_ids": "i", "old_logprobs": "f"}
_TRANSITION = tuple(f.name for f in fields(Transition))
_PLAIN = tuple(name for name in _TRANSITION if name not in _JSON and name not in _PACKED and name != "prompt_messages")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _dumps(value: Any) -> str:
    """JSON text that a database takes: see `text.clean`. NUL is escaped in it, and so comes back."""
    return clean(_encode(value))


def run_row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "attempt": run.attempt,
        "question": run.question,
        "question_id": run.question_id,
        "preset": run.preset,
        "seed": run.seed,
        "status": run.status,
        "answer": run.answer,
        "error": run.error,
        "error_message": run.error_message,
        "plan": run.plan,
        **{name: getattr(run.counters, name) for name in _COUNTERS},
        "illegal_actions": run.illegal_actions,
        "backbone_version": run.backbone_version,
        "graph_hash": run.graph_hash,
        "corpus_id": run.corpus_id,
        "started_at": run.started_at,
        "wall_ms": run.wall_ms,
        "metadata": _dumps(dict(run.metadata)),
    }


def run_of(row: Mapping[str, Any]) -> Run:
    """A run without its trace and transitions."""
    return Run(
        **{name: row[name] for name in _RUN},
        counters=Counters(**{name: row[name] for name in _COUNTERS}),
        metadata=json.loads(row["metadata"]),
    )


def node_row(run_id: str, attempt: int, node: TraceNode) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(node, name) for name in _NODE}
    return row | {"run_id": run_id, "attempt": attempt, "status": node.status.value, "children": _dumps(node.children)}


def node_of(row: Mapping[str, Any]) -> TraceNode:
    values = {name: row[name] for name in _NODE}
    return TraceNode(**{**values, "status": Status(row["status"]), "children": tuple(json.loads(row["children"]))})


def transition_row(t: Transition) -> dict[str, Any]:
    row = {name: getattr(t, name) for name in _PLAIN}
    for name in _JSON:
        row[name] = _dumps(getattr(t, name))
    for name, code in _PACKED.items():
        row[name] = array(code, getattr(t, name)).tobytes()
    row["prompt_messages"] = _dumps([[m.role, m.content] for m in t.prompt_messages])
    return row


def transition_of(row: Mapping[str, Any]) -> Transition:
    values = {name: row[name] for name in _PLAIN}
    for name in _JSON:
        values[name] = json.loads(row[name])
    for name, code in _PACKED.items():
        packed = array(code)
        packed.frombytes(row[name])
        values[name] = tuple(packed)
    values["prompt_messages"] = tuple(Message(role, content) for role, content in json.loads(row["prompt_messages"]))
    return Transition(**values)
