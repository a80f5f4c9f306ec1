"""Runs as answers: chat completions, their chunks, the steps as events, the run itself.

Invariant: usage is what the run spent, to the token; a stream says the same as the whole answer. Nothing here is sent
that `jade runs show` would not show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.scoring import weakness
from jade_graph.settings.plain import jsonable
from jade_graph.types import Event, Run, TraceNode, Transition

PREFIX = "chatcmpl-"
RETRACTED: Mapping[str, Any] = {"event": "retract"}
"""The contents so far are not the answer: it begins anew."""


def model_of(run: Run) -> str:
    """The exact model: what the same answer can be asked for with."""
    return f"{run.preset}@{run.backbone_version}"


def usage(run: Run) -> dict[str, int]:
    c = run.counters
    return {"prompt_tokens": c.prompt_tokens, "completion_tokens": c.action_tokens, "total_tokens": c.tokens}


def about(run: Run, ignored: Sequence[str]) -> dict[str, Any]:
    """The field `jade` of an answer."""
    return {
        "run_id": run.id,
        "plan": run.plan,
        "documents": [{"id": d.id, "title": d.title, "score": d.score} for d in run.documents],
        "backbone_version": run.backbone_version,
        "corpus_id": run.corpus_id,
        "graph_hash": run.graph_hash,
        "recorded": run.record_error is None,
        "wall_ms": run.wall_ms,
        "advice": weakness.of_run(run),
        "ignored": list(ignored),
    }


def completion(run: Run, ignored: Sequence[str], *, steps: bool) -> dict[str, Any]:
    """A whole `chat.completion`."""
    told = about(run, ignored)
    if steps:
        told["steps"] = [step(t) for t in run.transitions]
    return {
        "id": PREFIX + run.id,
        "object": "chat.completion",
        "created": int(run.started_at),
        "model": model_of(run),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": run.answer, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(run),
        "jade": told,
    }


class Chunks:
    """The `chat.completion.chunk`s of one stream. Every one has a choice, so that clients may read `choices[0]`."""

    def __init__(self, run_id: str, model: str) -> None:
        self._head = {"id": PREFIX + run_id, "object": "chat.completion.chunk", "created": int(time.time())}
        self._model = model

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return {**self._head, "model": self._model, "choices": [choice], **more}

    def first(self) -> dict[str, Any]:
        return self.chunk({"role": "assistant", "content": ""})

    def event(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """A step of the run: an empty delta for clients that do not know `jade`."""
        return self.chunk({}, jade=dict(told))

    def content(self, text: str) -> dict[str, Any]:
        return self.chunk({"content": text})

    def name(self, run: Run) -> None:
        """From now on the chunks name the exact model."""
        self._model = model_of(run)

    def last(self, run: Run, ignored: Sequence[str]) -> dict[str, Any]:
        return self.chunk({}, "stop", jade={"event": "end", "answer": run.answer, **about(run, ignored)})

    def usage(self, run: Run) -> dict[str, Any]:
        """What `stream_options.include_usage` asks for: a chunk without choices, as OpenAI sends it."""
        return {**self._head, "model": self._model, "choices": [], "usage": usage(run)}


def step(t: Transition) -> dict[str, Any]:
    """One action: who did what, where in the run, and whether it was legal."""
    told: dict[str, Any] = {
        "seq": t.seq,
        "trace_node": t.trace_node,
        "role": t.role,
        "plan": t.plan,
        "action": t.action_text,
        "violation": t.violation,
        "fallback_used": t.fallback_used,
        "error": t.error,
        "prompt_tokens": len(t.prompt_token_ids),
        "action_tokens": len(t.action_token_ids),
        "started_ms": t.started_ms,
        "latency_ms": t.latency_ms,
    }
    if t.role == "R" and isinstance(t.parsed, Mapping):
        told["queries"] = list(t.parsed.get("queries", ()))
        told["documents"] = [
            {"id": d["id"], "title": d.get("title", ""), "score": d["score"]} for d in t.parsed.get("documents", ())
        ]
    return told


def node(n: TraceNode) -> dict[str, Any]:
    """A (sub-)question as it stands now."""
    return {
        "id": n.id,
        "question": n.text,
        "status": n.status.value,
        "plan": n.plan,
        "answer": n.answer,
        "children": list(n.children),
        "error": n.error,
    }


def told(event: Event) -> dict[str, Any] | None:
    """An event of a run as a client gets it; the end is told by the last chunk."""
    if event.kind == "transition" and event.transition is not None:
        return {"event": "step", **step(event.transition)}
    if event.kind == "trace":
        return {"event": "trace", "nodes": [node(n) for n in event.nodes.values()]}
    return None


def run_body(run: Run, *, tokens: bool = False) -> dict[str, Any]:
    """A run with trace and actions; token ids, log-probabilities and prompts where asked for."""
    out: dict[str, Any] = {
        "id": run.id,
        "object": "run",
        "question": run.question,
        "model": model_of(run),
        "preset": run.preset,
        "status": run.status,
        "answer": run.answer,
        "error": run.error,
        "error_message": run.error_message,
        "plan": run.plan,
        "seed": run.seed,
        "usage": usage(run),
        "counters": jsonable(run.counters),
        "started_at": run.started_at,
        "wall_ms": run.wall_ms,
        "backbone_version": run.backbone_version,
        "corpus_id": run.corpus_id,
        "graph_hash": run.graph_hash,
        "attempt": run.attempt,
        "metadata": dict(run.metadata),
        "trace": [node(n) for n in run.trace],
        "documents": [{"id": d.id, "title": d.title, "text": d.text, "score": d.score} for d in run.documents],
        "steps": [step(t) for t in run.transitions],
    }
    if tokens:
        for told, t in zip(out["steps"], run.transitions, strict=True):
            told["prompt_messages"] = [{"role": m.role, "content": m.content} for m in t.prompt_messages]
            told["prompt_token_ids"] = list(t.prompt_token_ids)
            told["action_token_ids"] = list(t.action_token_ids)
            told["logprobs"] = list(t.old_logprobs)
    return out


_ROW = (
    "question", "question_id", "preset", "status", "answer", "error", "plan", "calls", "prompt_tokens",
    "action_tokens", "backbone_version", "corpus_id", "started_at", "wall_ms",
)  # fmt: skip


def row_body(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the list of runs."""
    return {"id": row["id"], "object": "run", **{name: row[name] for name in _ROW}}
