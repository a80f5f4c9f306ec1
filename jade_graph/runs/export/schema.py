"""The columns of an export, and how records become rows of them and back.

Invariant: every field of `Transition` and `Run` has one column (but `Run.record_error`, which is no part of the
record), and what a row holds determines the record: derived columns are for readers of tables and are never read back.
Maps whose keys are open are JSON text; token ids are int32 and log-probabilities float32, as in the run store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.types import Counters, Message, Run, Status, TraceNode, Transition

EXPORT_SCHEMA = 1
"""Of the folder's layout; `jade_graph.types.SCHEMA_VERSION` is that of the records in it."""
KIND = "jade-export"

# Column: (Arrow type, what it is). The types are looked up in `arrow_types`.
TRANSITIONS: dict[str, tuple[str, str]] = {
    "schema_version": ("int32", "version of this record"),
    "run_id": ("string", "the run; (run_id, attempt, seq) is unique"),
    "question_id": ("string", "of the data set's question"),
    "attempt": ("int32", "the run's attempt: its last one"),
    "seq": ("int32", "number of the action in the run, from 0"),
    "round": ("int32", "round of the run"),
    "step": ("int32", "step within the round; 0 is the plan"),
    "depth": ("int32", "depth of the sub-question"),
    "node": ("string", "graph node that acted"),
    "trace_node": ("string", "path of the sub-question; 0 is the root"),
    "role": ("string", "code of the role"),
    "agent_trainable": ("bool", "whether the role is trained"),
    "plan": ("string", "the round's workflow"),
    "prompt_messages": ("messages", "what the role rendered: role and content"),
    "prompt_token_ids": ("ids", "what the model consumed"),
    "action_text": ("string", "what the model produced"),
    "action_token_ids": ("ids", "its token ids; an end token that was sampled is the last"),
    "old_logprobs": ("logprobs", "natural log-probability of each action id, as it was sampled"),
    "sampling": ("json", "temperature, top_p, seed .."),
    "finish_reason": ("string", "stop, length, scripted, tool or error"),
    "truncated": ("bool", "the action reached its token limit"),
    "prompt_cut": ("bool", "documents were shortened to fit the context"),
    "parsed": ("json", "the action's value"),
    "valid": ("bool", "whether the action was legal"),
    "violation": ("string", "what was wrong with it"),
    "fallback_used": ("bool", "the role's fallback took its place"),
    "rewards": ("json", "reward terms by name, once assigned"),
    "reward": ("float64", "their sum; null until credit is assigned"),
    "value": ("float64", "of the learner"),
    "advantage": ("float64", "of the learner"),
    "return": ("float64", "of the learner"),
    "done": ("bool", "the last action of the run"),
    "counters_before": ("json", "what the run had spent before"),
    "counters_after": ("json", "and after"),
    "started_ms": ("float64", "since the run's start"),
    "latency_ms": ("float64", "of the whole action"),
    "queue_ms": ("float64", "of waiting for a batch"),
    "backbone_version": ("string", "names the weights; empty for tools"),
    "graph_hash": ("string", "names preset, roles, plans and k"),
    "corpus_id": ("string", "names content and encoder of the corpus"),
    "error": ("string", "of a failed action"),
}
RUNS: dict[str, tuple[str, str]] = {
    "id": ("string", "the run; transitions name it run_id"),
    "attempt": ("int32", "its last attempt"),
    "question": ("string", "as it was asked"),
    "question_id": ("string", "of the data set's question"),
    "golds": ("strings", "gold answers, from the metadata; null where there are none"),
    "preset": ("string", "the method"),
    "seed": ("int64", "of the run"),
    "status": ("string", "answered or failed"),
    "error": ("string", "why a failed run failed"),
    "error_message": ("string", "in words"),
    "answer": ("string", "the run's answer"),
    "plan": ("string", "workflow of the root"),
    "rounds": ("int64", "rounds of the run"),
    "sub_questions": ("int64", "sub-questions"),
    "retrievals": ("int64", "searches"),
    "calls": ("int64", "calls of the model"),
    "prompt_tokens": ("int64", "tokens read"),
    "action_tokens": ("int64", "tokens written"),
    "illegal_actions": ("int32", "actions with a violation"),
    "transitions": ("int32", "rows of this run in transitions.parquet"),
    "backbone_version": ("string", "names the weights"),
    "graph_hash": ("string", "names preset, roles, plans and k"),
    "corpus_id": ("string", "names content and encoder of the corpus"),
    "started_at": ("float64", "seconds since 1970"),
    "wall_ms": ("float64", "from start to end"),
    "trace": ("trace", "the sub-questions with their answers"),
    "metadata": ("json", "rollout, replica, type, gold answers ..; whatever the caller added"),
}
DERIVED = frozenset({"golds", "plan", "illegal_actions", "transitions"})
"""Columns of `RUNS` that other columns determine."""

_COUNTERS = tuple(f.name for f in fields(Counters))
_NODE = tuple(f.name for f in fields(TraceNode))
_RUN = tuple(name for name in RUNS if name not in DERIVED and name not in (*_COUNTERS, "trace", "metadata"))
_FIELD = {name: "return_" if name == "return" else name for name in TRANSITIONS}


def arrow() -> Any:
    """pyarrow and pyarrow.parquet, as `pa` and `pq`. Raises `UsageError` PARQUET_MISSING."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(
            f"exports are Parquet, and pyarrow cannot be imported: {error}",
            code="PARQUET_MISSING",
            hint='pip install "jade-graph[train]"',
        ) from error
    return SimpleNamespace(pa=pa, pq=pq)


def arrow_schema(columns: Mapping[str, tuple[str, str]]) -> Any:
    """The Arrow schema of `TRANSITIONS` or `RUNS`."""
    pa = arrow().pa
    text = pa.string()
    node = pa.struct(
        [(name, pa.int32() if name == "depth" else pa.list_(text) if name == "children" else text) for name in _NODE]
    )
    types = {
        "string": text,
        "json": text,
        "strings": pa.list_(text),
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "ids": pa.list_(pa.int32()),
        "logprobs": pa.list_(pa.float32()),
        "messages": pa.list_(pa.struct([("role", text), ("content", text)])),
        "trace": pa.list_(node),
    }
    return pa.schema([(name, types[kind]) for name, (kind, _) in columns.items()])


# --- records to rows --------------------------------------------------------------------------------------------------
def run_row(run: Run) -> dict[str, Any]:
    """A run as a row of `RUNS`. Raises `TypeError` or `ValueError` where its metadata is no JSON."""
    golds = run.metadata.get("answers")
    return {
        **{name: getattr(run, name) for name in _RUN},
        **{name: getattr(run.counters, name) for name in _COUNTERS},
        "golds": [str(gold) for gold in golds] if isinstance(golds, list | tuple) else None,
        "plan": run.plan,
        "illegal_actions": run.illegal_actions,
        "transitions": len(run.transitions),
        "trace": [{**{name: getattr(n, name) for name in _NODE}, "status": n.status.value} for n in run.trace],
        "metadata": dumps(dict(run.metadata)),
    }


def transition_row(t: Transition) -> dict[str, Any]:
    """A transition as a row of `TRANSITIONS`. Raises `TypeError` or `ValueError` where a map of it is no JSON."""
    row = {name: getattr(t, attribute) for name, attribute in _FIELD.items()}
    for name in (name for name, (kind, _) in TRANSITIONS.items() if kind == "json"):
        row[name] = dumps(row[name])
    row["prompt_messages"] = [{"role": m.role, "content": m.content} for m in t.prompt_messages]
    return row


def dumps(value: Any) -> str:
    """JSON as people read it; where that is no UTF-8 (a lone surrogate, legal in JSON), all of it escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


# --- rows to records --------------------------------------------------------------------------------------------------
def run_of(row: Mapping[str, Any], transitions: Sequence[Transition]) -> Run:
    return Run(
        **{name: row[name] for name in _RUN},
        counters=Counters(**{name: row[name] for name in _COUNTERS}),
        trace=tuple(TraceNode(**{**node, "status": Status(node["status"])}) for node in row["trace"]),
        metadata=json.loads(row["metadata"]),
        transitions=tuple(transitions),
    )


def transitions_of(table: Any) -> list[Transition]:
    """Every row of an Arrow table with the columns of `TRANSITIONS`."""
    columns: dict[str, list[Any]] = {}
    for name, (kind, _) in TRANSITIONS.items():
        column = table.column(name)
        if kind in ("ids", "logprobs"):
            columns[name] = [row for chunk in column.chunks for row in _rows(chunk)]
        elif kind == "json":
            columns[name] = [json.loads(text) for text in column.to_pylist()]
        elif kind == "messages":
            columns[name] = [tuple(Message(m["role"], m["content"]) for m in row) for row in column.to_pylist()]
        else:
            columns[name] = column.to_pylist()
    names = [_FIELD[name] for name in TRANSITIONS]
    return [Transition(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _rows(chunk: Any) -> list[tuple[Any, ...]]:
    """The rows of a list array as tuples, without a Python object per value in between."""
    values, offsets = chunk.values.to_numpy(zero_copy_only=False), chunk.offsets.to_pylist()
    return [tuple(values[a:b].tolist()) for a, b in pairwise(offsets)]
