"""`jade look`: why an action decided as it did, shown in the model itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jade_graph.patching import Pair
    from jade_graph.patching.looking import Look
    from jade_graph.patching.recovery import Kind

app = single()


@command(app, "look")
def look(
    cli: Cli,
    run: Annotated[str | None, typer.Argument(help="A run's id, or the beginning of it; last: the newest.")] = None,
    node: Annotated[
        str, typer.Option(help="The action: a role (DS), its number, or QUESTION:ROLE as in 0.2:KS.")
    ] = "DS",
    document: Annotated[int | None, typer.Option(min=0, help="Of a selector: the document that is looked at.")] = None,
    instead: Annotated[int | None, typer.Option(min=0, help="The document that is put in its place.")] = None,
    swap: Annotated[
        str | None, typer.Option(metavar="OLD=NEW", help="A text of the prompt, and what replaces it.")
    ] = None,
    against: Annotated[str, typer.Option(help="Of a planner: the other plan; default: the nearest one.")] = "",
    data: Annotated[str | None, typer.Option(help="Instead of a run: judgements over a data set's passages.")] = None,
    form: Annotated[str, typer.Option(help="With --data: pointwise or pairwise.")] = "pointwise",
    n: Annotated[int, typer.Option("--n", min=1, help="With --data: pairs.")] = 20,
    steps: Annotated[
        bool, typer.Option("--steps", help="With --data: ask first steps, which one passage answers.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=4, help="With --data: most tokens of a document.")] = 48,
    least: Annotated[float, typer.Option(min=0, help="With --data: leave out pairs that part by less (nats).")] = 0.0,
    keep: Annotated[
        Path | None, typer.Option(help="With --data: a file of what is done; the same command goes on.")
    ] = None,
    sites: Annotated[str, typer.Option(help="resid, attn, mlp, head.")] = "resid,attn,mlp,head",
    every: Annotated[int, typer.Option(min=1, help="Each so manieth layer alone, from the last one down.")] = 1,
    most: Annotated[
        int | None, typer.Option(min=1, help="Most tokens through the model; default: 400,000 a pair.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Another model than the settings'.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps.")] = None,
    out: Annotated[Path | None, typer.Option(help="A picture: FILE.svg or FILE.png.")] = None,
) -> None:
    """Look inside a decision: activations of the recorded prompt are put into a run on a corrupted one.

    Where a site alone brings the decision back (recovery 1), the model holds there what decides. For any action that
    ends in a fixed choice: a document kept or dropped, search or end, which plan.
    """
    from jade_graph.assembly.models import open_backbone
    from jade_graph.cli.fork import recorded
    from jade_graph.cli.look_showing import shown
    from jade_graph.patching.telling import model_of, of_decision
    from jade_graph.sync import run_sync

    cli.put("backbone", backbone)
    cli.put("device", device)
    kinds: Any = tuple(kind.strip() for kind in sites.split(",") if kind.strip())
    found = None if data is not None else recorded(cli, run or "last")
    opened = open_backbone(cli.settings)
    try:
        with model_of(opened) as (model, codec, version):
            if data is not None:
                from jade_graph.cli.look_data import over

                value = over(cli, model, codec, version, data=data, form=form, count=n, steps=steps, tokens=tokens,
                             least=least, keep=keep, sites=kinds, every=every, most=most)  # fmt: skip
            else:
                from jade_graph.patching.decisions import Asked, decisions
                from jade_graph.patching.telling import nearest

                assert found is not None
                wanted = Asked(document, instead, _swap(swap), against)
                chosen = nearest(model, decisions(codec, found, action_of(found, node), wanted))
                seen, spent = measured(cli, model, [chosen.pair], kinds, every, most)
                value = {**of_decision(codec, chosen, seen, version), "cost": spent}
    finally:
        run_sync(opened.aclose())
    if out is not None:
        from jade_graph.picture.heatmap import write

        write(value, out)
        cli.out.log(f"wrote {out}")
    cli.out.result(value, lambda: shown(value))


def measured(
    cli: Cli, model: Any, pairs: Sequence[Pair], sites: Sequence[Kind], every: int, most: int | None
) -> tuple[Look, dict[str, Any]]:
    """The look, its cost said beforehand. Raises `UsageError` LOOK_COST."""
    from jade_graph.patching import look as patch

    spent = priced(cli, model, pairs, sites, every, most)
    began = time.process_time()
    with cli.out.progress("patching", "passes") as tick:
        seen = patch(model, pairs, sites=sites, every=every, tick=tick)
    return seen, {**spent, "cpu_s": round(time.process_time() - began, 2)}


def priced(
    cli: Cli, model: Any, pairs: Sequence[Pair], sites: Sequence[Kind], every: int, most: int | None
) -> dict[str, Any]:
    """Say what it will cost, and refuse what is above the limit."""
    from jade_graph.patching import cost
    from jade_graph.patching.telling import LIMIT, require_cost

    wanted = cost(model, pairs, sites=sites, every=every)
    size = sum(w.numel() for w in model.parameters())
    cli.out.log(
        f"{wanted.passes} batches of at most {wanted.rows} rows: {wanted.tokens:,} tokens through "
        f"{size / 1e6:,.1f} M parameters, {2 * size * wanted.tokens / 1e12:,.2f} Tflop"
    )
    require_cost(wanted.tokens, most or LIMIT * max(1, len(pairs)))
    return {"batches": wanted.passes, "rows": wanted.rows, "tokens": wanted.tokens}


def action_of(run: Any, node: str) -> Any:
    """The action that `--node` names; of a role alone its first. Raises `UsageError` FORK_AT."""
    from jade_graph.workflow.replay import action_at

    first = next((t for t in run.transitions if t.role.lower() == node.strip().lower()), None)
    return first if first is not None else action_at(run, node)


def _swap(text: str | None) -> tuple[str, str] | None:
    from jade_graph.errors import UsageError

    if text is None:
        return None
    old, equals, new = text.partition("=")
    if not equals or not old:
        raise UsageError(f"{text!r} is no swap.", code="LOOK_SWAP", hint='--swap "OLD=NEW"')
    return old, new
