"""`jade runs prune`: old runs go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.cli.command import Cli
    from jade_graph.runs.retention import Chosen, Rule
    from jade_graph.runs.store import RunStore


def prune(cli: Cli, store: RunStore, rule: Rule, *, yes: bool, compact: bool) -> None:
    """Say what would go, and with `yes` take it away."""
    from jade_graph.runs import retention

    chosen = retention.choose(store.engine, rule)
    gone = 0
    if yes:
        with cli.out.progress("removing", "runs") as tick:
            for gone in retention.remove(store.engine, chosen.ids):
                tick(gone, len(chosen.ids))
        if compact:
            retention.compact(store.engine)
    told = {
        "removed": gone,
        "would_remove": len(chosen.ids),
        "runs": chosen.total,
        "kept": {"running": chosen.running, "rollouts": chosen.rollouts, "rated": chosen.rated},
    }
    cli.out.result(told, lambda: _shown(chosen, yes))
    if not yes and chosen.ids and not cli.out.json:
        cli.out.log("nothing was removed; --yes removes them")


def _shown(chosen: Chosen, yes: bool) -> list[Any]:
    left = chosen.total - len(chosen.ids)
    verb = "removed" if yes else "would go"
    out = [f"{len(chosen.ids):,} of {chosen.total:,} runs {verb}, {left:,} stay."]
    for count, what in (
        (chosen.running, "are under way"),
        (chosen.rollouts, "are of rollouts (--rollouts)"),
        (chosen.rated, "have feedback or judgements (--rated)"),
    ):
        if count:
            out.append(f"  of those that are old enough {count:,} stay: they {what}")
    return out


__all__ = ["prune"]
