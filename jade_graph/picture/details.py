"""Everything about one box of the picture, as plain data that a page shows as text.

Invariant: values are strings, numbers and lists of them; nothing is markup. Tokens are the recorded ids: where a
tokenizer is at hand that spells them to the recorded text they are shown as pieces, else as numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from jade_graph.picture import facts, weighed
from jade_graph.picture.advice import next_step
from jade_graph.picture.text import clean, milliseconds
from jade_graph.scoring import weakness
from jade_graph.types import Run, TraceNode, Transition

Pieces = Callable[[Sequence[int]], Sequence[str]]
"""Spells token ids: one text each."""


def details(run: Run, key: str, *, pieces: Pieces | None = None) -> dict[str, Any]:
    """What to show of a box, by its key.

    Returns:
        `{"key", "code", "family", "title", "summary", "badges": [[text, tone]], "facts": [[name, value]],
        "sections": [{"title", "kind", ..}]}`. Kinds: "text" {"text"}, "messages" {"messages": [[role, text]]}, "tokens"
        {"tokens": [[text, logprob]], "note"}, "documents" {"documents": [{"name", "title", "selected", "parts"}]},
        "rows" {"rows": [[name, value]]}, "pieces" (`weighed.section`). Empty for a key that is not there.
    """
    kind, rest = key[:1], key[1:]
    if kind == "a" and rest.isdigit():
        found = next((t for t in run.transitions if t.seq == int(rest)), None)
        return _action(run, found, pieces) if found else {}
    node = next((n for n in run.trace if n.id == rest), None)
    if node is None and rest == "0":
        node = TraceNode("0", run.question, answer=run.answer, error=run.error)
    if kind in "qo" and node is not None:
        return _question(run, node, key)
    return {}


def _question(run: Run, node: TraceNode, key: str) -> dict[str, Any]:
    own = [t for t in run.transitions if t.trace_node == node.id]
    root = node.id == "0"
    rows: list[list[str]] = [["state", node.status.value], ["plan", node.plan or "none"]]
    if node.order:
        rows.append(["sub-questions", f"{len(node.children)}, {node.order}"])
    if node.resolved and node.resolved != node.question:
        rows.append(["as written", node.question])
    rows += [["actions", str(len(own))], ["model calls", str(sum(bool(t.action_token_ids) for t in own))]]
    rows.append(["time", milliseconds(sum(t.latency_ms for t in own))])
    sections: list[dict[str, Any]] = []
    badges = []
    answer = node.answer or (run.answer if root else "")
    if answer:
        sections.append({"title": "Answer", "kind": "text", "text": clean(answer)})
    if root:
        if verdict := facts.verdict(run):
            badges.append([verdict.partition(":")[0], "good" if verdict == "right" else "bad"])
            sections.append({"title": "Gold answers", "kind": "text", "text": clean("\n".join(facts.golds(run)))})
        sections[:0] = _trouble(run)
        if weak := weakness.of_run(run):
            sections.append({"title": "Too weak for its roles", "kind": "text", "text": weak})
            badges.append(["mostly illegal", "bad"])
    error = node.error or (run.error if root else None)
    if error:
        badges.insert(0, [error, "bad"])
    title = "Question" if root else f"Sub-question {node.id[2:]}"
    return {
        "key": key, "code": "", "family": "question", "title": title, "summary": clean(node.text),
        "badges": badges, "facts": rows, "sections": sections,
    }  # fmt: skip


def _trouble(run: Run) -> list[dict[str, Any]]:
    """Why a run failed, and what to try; nothing of one that did not."""
    texts = (("Why it failed", clean(run.error_message or "")), ("What to try", next_step(run) or ""))
    return [{"title": title, "kind": "text", "text": text} for title, text in texts if text]


def _action(run: Run, t: Transition, pieces: Pieces | None) -> dict[str, Any]:
    badges: list[list[str]] = []
    if t.error:
        badges.append([t.error, "bad"])
    if t.violation:
        badges.append([f"illegal: {t.violation}", "bad"])
    if t.fallback_used:
        badges.append(["fallback used", "warn"])
    if t.truncated:
        badges.append(["cut at its token limit", "warn"])
    if t.prompt_cut:
        badges.append(["documents shortened", "warn"])
    for name, tone in (("replayed", "note"), ("edited", "note"), ("forced", "note")):
        if t.sampling.get(name) not in (None, False):
            badges.append(["explored" if name == "forced" else name, tone])
    if not t.agent_trainable and facts.family(t) != "tool" and "replayed" not in t.sampling:
        badges.append(["not trained", "note"])
    if t.judges is not None:
        badges.append([f"judges action {t.judges}; in training only", "note"])
    judged = weighed.section(run, t)
    sections = [s for s in (_written(t, pieces), judged, _documents(run, t), _seen(t), _rewards(t), _parsed(t)) if s]
    if t.error and t.error == run.error:
        sections[:0] = _trouble(run)
    return {
        "key": f"a{t.seq}", "code": t.role, "family": facts.family(t), "title": facts.name_of(t.role),
        "summary": clean(facts.outcome(t)), "badges": badges, "facts": _facts(run, t), "sections": sections,
        "action": clean(t.action_text), "seq": t.seq,
    }  # fmt: skip


def _facts(run: Run, t: Transition) -> list[list[str]]:
    rows = [["time", milliseconds(t.latency_ms)]]
    if t.queue_ms:
        rows.append(["of it waiting", milliseconds(t.queue_ms)])
    if t.action_token_ids:
        rows += [["prompt", f"{len(t.prompt_token_ids)} tokens"], ["written", f"{len(t.action_token_ids)} tokens"]]
        total = sum(t.old_logprobs)
        rows.append(["log-probability", f"{total:.2f} ({total / len(t.old_logprobs):.3f} a token)"])
        if t.sampling.get("temperature") is not None:
            rows.append(["temperature", f"{t.sampling['temperature']:g}"])
    rows += [["question", t.trace_node], ["round, step", f"{t.round}, {t.step}"], ["action", str(t.seq)]]
    if t.backbone_version:
        rows.append(["version", t.backbone_version])
    for name, value in (("value", t.value), ("return", t.return_), ("advantage", t.advantage)):
        if value is not None:
            rows.append([name, f"{value:+.3f}"])
    del run
    return [[name, clean(value)] for name, value in rows]


def _written(t: Transition, pieces: Pieces | None) -> dict[str, Any] | None:
    if not t.action_token_ids:
        text = clean(t.action_text)
        return {"title": "What it wrote", "kind": "text", "text": text} if text and t.finish_reason != "tool" else None
    spelled: Sequence[str] | None = None
    if pieces is not None:
        spelled = list(pieces(t.action_token_ids))
        if len(spelled) != len(t.action_token_ids) or not "".join(spelled).startswith(t.action_text):
            spelled = None
    note = "" if spelled else "This model's tokenizer is not at hand: tokens are shown by number."
    shown = spelled or [str(i) for i in t.action_token_ids]
    tokens = [[clean(piece), round(p, 4)] for piece, p in zip(shown, t.old_logprobs, strict=True)]
    return {"title": "What it wrote", "kind": "tokens", "tokens": tokens, "note": note, "text": clean(t.action_text)}


def _seen(t: Transition) -> dict[str, Any] | None:
    if not t.prompt_messages:
        return None
    title = "What was searched for" if facts.family(t) == "tool" else "What it saw"
    return {"title": title, "kind": "messages", "messages": [[m.role, clean(m.content)] for m in t.prompt_messages]}


def _documents(run: Run, t: Transition) -> dict[str, Any] | None:
    """The documents that the action brought, chose from or read, those that the selector kept marked."""
    own = sorted((o for o in run.transitions if o.trace_node == t.trace_node), key=lambda o: o.seq)
    found = [o for o in own if isinstance(o.parsed, dict) and o.parsed.get("documents") and o.seq <= t.seq]
    if not found or facts.kind_of(t.role) in ("planner", "decomposer", "summarizer"):
        return None
    chosen = next((o.parsed for o in own if o.role == "DS" and o.seq >= found[-1].seq), None)
    kept = set(chosen) if isinstance(chosen, list) else None
    wanted = [text for text in (*facts.golds(run), run.answer) if len(text) > 1 and text.lower() != "unknown"]
    node = next((n for n in run.trace if n.id == t.trace_node), None)
    if node is not None and node.answer and node.answer.lower() != "unknown":
        wanted.append(node.answer)
    return {
        "title": "Documents",
        "kind": "documents",
        "documents": [
            {
                "name": f"Document {i}",
                "title": clean(str(d.get("title") or "")),
                "score": d.get("score"),
                "selected": None if kept is None else i in kept,
                "parts": marked(clean(str(d.get("text", ""))), wanted),
            }
            for i, d in enumerate(found[-1].parsed["documents"])
        ],
    }


def marked(text: str, wanted: Sequence[str]) -> list[list[Any]]:
    """The text in parts [part, whether it is one of the wanted strings], whole words alone, in any case."""
    found = sorted({w.strip() for w in wanted if w.strip()}, key=len, reverse=True)
    if not found:
        return [[text, False]]
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, found)) + r")(?!\w)", re.IGNORECASE)
    parts = pattern.split(text)
    return [[part, i % 2 == 1] for i, part in enumerate(parts) if part]


def _rewards(t: Transition) -> dict[str, Any] | None:
    if not t.rewards and t.reward is None:
        return None
    rows = [[name, f"{value:+.3f}"] for name, value in t.rewards.items()]
    if t.reward is not None:
        rows.append(["reward of the action", f"{t.reward:+.3f}"])
    return {"title": "Rewards", "kind": "rows", "rows": [[clean(a), clean(b)] for a, b in rows]}


def _parsed(t: Transition) -> dict[str, Any] | None:
    if t.parsed is None or (isinstance(t.parsed, dict) and "documents" in t.parsed):
        return None
    return {"title": "Read as", "kind": "text", "text": clean(json.dumps(t.parsed, ensure_ascii=False, indent=1))}
