"""A run as people read it in a terminal: one tree of questions, with what each role did.

Invariant: rendering only reads. Text from documents and models is shown as text: rich markup in it has no effect.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from jade_graph.picture import weighed
from jade_graph.picture.advice import next_step
from jade_graph.picture.text import clean
from jade_graph.types import Run, TraceNode, Transition
from jade_graph.workflow.judged import Judged, judged
from jade_graph.workflow.reading import in_words

_FONT = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)
_STATUS = {"answered": "green", "solved": "green", "failed": "red", "running": "yellow", "expanded": "yellow"}
_ROLE = {"PL": "bold magenta", "QDS": "cyan", "QDP": "cyan", "QR": "blue", "R": "yellow", "DS": "blue", "AS": "green"}


def run_tree(run: Run, *, documents: bool = True, width: int = 90) -> RenderableType:
    """The whole run: a heading, the question, the tree of trace nodes, the outcome.

    Args:
        documents: name the retrieved passages under each R.
        width: texts are cut to about this many characters.
    """
    c = run.counters
    head = Text.assemble(
        ("run ", "dim"), (run.id[:12], "bold"), ("  ", ""), (run.preset, "bold"), ("  ", ""),
        (run.status, f"bold {_STATUS[run.status]}"),
        (f"  {c.calls} calls · {c.retrievals} retrievals · {c.tokens:,} tokens · {run.wall_ms:,.0f} ms", "dim"),
        (f" · {run.illegal_actions} illegal" if run.illegal_actions else "", "red"),
    )  # fmt: skip
    lines: list[RenderableType] = [head]
    by_node: dict[str, list[Transition]] = {}
    for t in run.transitions:
        by_node.setdefault(t.trace_node, []).append(t)
    nodes = {n.id: n for n in run.trace}
    if "0" in nodes:
        texts = {text.seq: text for text in judged(run)}
        lines.append(_node_tree(nodes["0"], nodes, by_node, documents, width, texts))
    else:
        lines.append(Text(run.question))
    if run.status == "failed":
        lines.append(Text.assemble((f"{run.error}: ", "bold red"), _cut(run.error_message or "no answer", width * 2)))
        lines.append(Text.assemble(("try  ", "dim"), next_step(run) or ""))
    else:
        lines.append(Text.assemble(("answer  ", "dim"), (run.answer, "bold green")))
    version = f"backbone {run.backbone_version} · graph {run.graph_hash} · corpus {run.corpus_id or '-'}"
    lines.append(Text(f"{version} · seed {run.seed}", style="dim"))
    return Group(*lines)


def run_svg(run: Run, *, documents: bool = False, width: int = 112) -> str:
    """The tree as an SVG picture of a terminal, `width` columns wide."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(run_tree(run, documents=documents, width=width - 50))
    picture = console.export_svg(title=f"jade runs show {run.id[:8]}")
    # The font would be fetched from the network: a reader's own fixed-width font does.
    return clean(_FONT.sub("", picture))


def _node_tree(
    node: TraceNode,
    nodes: dict[str, TraceNode],
    actions: dict[str, list[Transition]],
    documents: bool,
    width: int,
    texts: Mapping[int, Judged],
) -> Tree:
    label = Text.assemble(
        (f"{node.id} ", "dim"),
        (_cut(node.text, width), "bold"),
        ("  " if node.plan else "", ""),
        (node.plan, "magenta"),
    )
    if node.answer:
        label.append_text(Text.assemble(("  → ", "dim"), (_cut(node.answer, width), "green")))
    elif node.error:
        label.append_text(Text.assemble(("  ✗ ", "red"), (node.error, "red")))
    else:
        label.append(f"  {node.status.value}", style=_STATUS.get(node.status.value, "dim"))
    tree = Tree(label, guide_style="dim")
    own = [a for a in actions.get(node.id, []) if a.role != "AS"]
    rounds = list(dict.fromkeys(a.round for a in own))
    turns = {r: tree.add(Text(f"round {r}", style="dim")) for r in rounds} if len(rounds) > 1 else {}  # of a loop
    for t in own:
        _action(turns.get(t.round, tree), t, documents, width, texts.get(t.seq))
    for child in node.children:
        tree.add(_node_tree(nodes[child], nodes, actions, documents, width, texts))
    for t in (a for a in actions.get(node.id, []) if a.role == "AS"):
        _action(tree, t, documents, width, texts.get(t.seq))
    return tree


def _action(tree: Tree, t: Transition, documents: bool, width: int, text: Judged | None) -> None:
    line = Text.assemble((f"{t.role:<4}", _ROLE.get(t.role, "green")), _cut(_summary(t), width))
    if t.violation:
        line.append(f"  {t.violation}" + (" → fallback" if t.fallback_used else ""), style="red")
    if t.error:
        line.append(f"  {t.error}", style="bold red")
    if t.truncated:
        line.append("  cut at its token limit", style="red")
    if t.prompt_cut:
        line.append("  documents shortened", style="yellow")
    tokens = f"{len(t.prompt_token_ids)}+{len(t.action_token_ids)} tokens " if t.action_token_ids else ""
    line.append(f"  {tokens}{t.latency_ms:.0f} ms", style="dim")
    branch = tree.add(line)
    if text is not None:
        branch.add(weighed.line(text, width))
    if documents and isinstance(t.parsed, dict):
        for i, d in enumerate(t.parsed.get("documents") or ()):
            branch.add(Text(f"Document{i} {_cut(d['title'] or d['text'], width)}", style="dim"))


def _summary(t: Transition) -> str:
    """What an action came to, in one line."""
    value: Any = t.parsed
    if isinstance(value, dict) and "documents" in value:
        return f"{len(value['documents'])} passages for " + " | ".join(value.get("queries", ()))
    if t.role == "DS" and isinstance(value, list):
        return "keeps " + (", ".join(f"Document{i}" for i in value) or "none")
    return in_words(value)


def _cut(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
