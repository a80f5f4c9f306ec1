"""`jade diff V1 V2 --look`: one recorded decision in two versions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jade_graph.cli.command import Cli

if TYPE_CHECKING:
    from jade_graph.registry.versions import ModelVersion


def inside_both(cli: Cli, versions: Sequence[ModelVersion], run: str, node: str) -> dict[str, Any]:
    """The same sites of both for one recorded action. Raises `UsageError` LOOK_PROMPT, LOOK_SAME, LOOK_ROLE ..."""
    from jade_graph.assembly.models import open_backbone
    from jade_graph.cli.fork import recorded
    from jade_graph.cli.look import action_of, measured
    from jade_graph.patching.decisions import decisions
    from jade_graph.patching.recovery import KINDS
    from jade_graph.patching.takeover import takeover
    from jade_graph.patching.telling import model_of, nearest
    from jade_graph.sync import run_sync

    found = recorded(cli, run)
    t = action_of(found, node)
    seen = []
    chosen = None
    for version in versions:
        opened = open_backbone(cli.settings, f"models:/{version.name}/{version.number}")
        try:
            with model_of(opened) as (model, codec, _):
                mine = decisions(codec, found, t)  # the second version has to read the same tokens
                chosen = chosen or nearest(model, mine)
                seen.append(measured(cli, model, [chosen.pair], KINDS, 1, None)[0])
        finally:
            run_sync(opened.aclose())
    assert chosen is not None
    return {
        "run_id": found.id, "seq": t.seq, "decision": chosen.chosen.name,
        "swapped": {"old": chosen.old, "new": chosen.new}, **takeover(*seen),
    }  # fmt: skip


def told(value: Mapping[str, Any]) -> list[Any]:
    """Both versions' heads, as renderables."""
    from jade_graph.cli.console import table

    rows = sorted(value["heads"], key=lambda r: -max(abs(r["a"]), abs(r["b"])))[:10]
    cells = [(f"L{r['layer']}H{r['at']}", *(f"{r[k]:+.2f}" for k in ("a", "b", "difference"))) for r in rows]
    (a, a0), (b, b0) = value["ld"]["a"], value["ld"]["b"]
    took = ", ".join(h["head"] for h in value["took_over"]) or "none"
    return [
        table(("head", "V1", "V2", "change"), cells, right="V1 V2 change", title=f"inside: {value['decision']}"),
        f"logit difference, clean and corrupted: V1 {a:+.2f} and {a0:+.2f}, V2 {b:+.2f} and {b0:+.2f}",
        f"of the {len(value['top_a'])} heads that move it most {len(value['shared'])} are the same; took over: {took}",
    ]
