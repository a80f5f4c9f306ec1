"""Everything a page needs to show a run, as plain data; boxes' details come one by one, when they are asked for.

Invariant: pure but for the reward terms, which are computed as `jade explain-credit` does and are left out where the
run has no gold answers. Nothing here is markup but the pictures, whose texts are escaped where they are drawn.
"""

from __future__ import annotations

from typing import Any

from jade_graph.errors import JadeError
from jade_graph.picture import facts
from jade_graph.picture.advice import next_step
from jade_graph.picture.gantt import gantt_svg
from jade_graph.picture.layout import lay_out
from jade_graph.picture.svg import tree_svg
from jade_graph.picture.text import clean, milliseconds
from jade_graph.picture.topology import topology_svg
from jade_graph.types import Question, Run


def view(run: Run) -> dict[str, Any]:
    """`{"id", "status", "question", "head", "badges", "why", "steps", "tree", "gantt", "topology", "order", "parent"}`.

    `order` names the action that ends at each step, with one line about it: [key, line], from step 1 on.
    """
    picture = lay_out(run)
    spans = facts.spans(run)
    order: list[list[str]] = [["", ""] for _ in run.transitions]
    for t in run.transitions:
        line = f"{t.role} {facts.name_of(t.role)}: {facts.outcome(t)}"
        order[spans[t.seq].ends - 1] = [f"a{t.seq}", clean(line)]
    return {
        "id": run.id,
        "status": run.status,
        "question": clean(run.question),
        "head": _head(run),
        "badges": _badges(run),
        "why": clean(f"{run.error_message or ''} {next_step(run)}".strip()) if run.status == "failed" else "",
        "steps": picture.steps,
        "tree": tree_svg(picture, style=False),
        "gantt": gantt_svg(run),
        "topology": topology_svg(run),
        "order": order,
        "parent": str(run.metadata.get("parent") or ""),
    }


def _head(run: Run) -> list[list[str]]:
    c = run.counters
    calls = c.calls or sum(bool(t.action_token_ids) for t in run.transitions)
    rows = [
        ["preset", run.preset],
        ["model calls", str(calls)],
        ["searches", str(c.retrievals)],
        ["tokens", f"{c.tokens:,}"],
        ["time", milliseconds(run.wall_ms) if run.wall_ms else "…"],
        ["illegal actions", str(run.illegal_actions)],
        ["version", run.backbone_version],
        ["seed", str(run.seed)],
    ]
    if run.metadata.get("type"):
        rows.insert(1, ["type", str(run.metadata["type"])])
    return [[name, clean(value)] for name, value in rows]


def _badges(run: Run) -> list[list[str]]:
    tone = {"answered": "good", "failed": "bad"}.get(run.status, "run")
    out = [[run.status, tone]]
    if run.error:
        out.append([clean(run.error), "bad"])
    if verdict := facts.verdict(run):
        right = verdict == "right"
        out.append([clean(verdict), "good" if right else "bad"])
    return out


def credited(run: Run) -> Run:
    """The run with reward terms and advantages where they can be known: recorded ones stay as they are."""
    from dataclasses import replace

    from jade_graph import plugins
    from jade_graph.scoring.credit import assign
    from jade_graph.scoring.learned import reward_of
    from jade_graph.scoring.rewards import RewardSpec, score_run

    expected = facts.golds(run)
    recorded = any(t.reward is not None for t in run.transitions)
    if recorded or not expected or run.status == "running" or not run.transitions:
        return run
    try:
        preset = plugins.load("jade.presets", run.preset)
        question = Question(run.question_id, run.question, expected)
        spec = reward_of(run) or RewardSpec.of_preset(preset)
        rows = assign(run, score_run(run, question, spec), mode=preset.credit)
    except JadeError:
        return run
    return replace(run, transitions=tuple(sorted(rows, key=lambda t: t.seq)))
