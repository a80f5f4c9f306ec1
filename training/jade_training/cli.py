"""Train the bundled model from scratch, measure it, and write its card.

Invariant: thin. The command parses its options, calls `pretrain` and `publish`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single

app = single()
HASTY_STEPS = 80


@command(app, "pretrain")
def pretrain(
    cli: Cli,
    out: Annotated[Path, typer.Option(help="Folder of the model.")] = Path("jade-tiny"),
    seed: Annotated[int, typer.Option(help="Of starting values and data.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: those of the bundled model.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the bundled model was made with two.")] = 2,
    hasty: Annotated[
        bool, typer.Option("--hasty", help="Make jade-tiny-hasty: a last stage that makes a worse reader.")
    ] = False,
    fresh: Annotated[bool, typer.Option(help="Begin again instead of resuming a checkpoint in the folder.")] = False,
    card: Annotated[bool, typer.Option(help="Measure the model and write its card (minutes).")] = True,
) -> None:
    """Train jade-tiny from scratch. Killed at any time, the same command goes on from the last checkpoint."""
    from dataclasses import replace

    import torch

    from jade_training.pretrain.train import Progress, Settings, pretrain

    torch.set_num_threads(threads)
    settings = Settings(seed=seed) if steps is None else Settings(seed=seed, steps=steps)
    if hasty:
        settings = replace(settings, hasty_steps=HASTY_STEPS)
    with cli.out.progress("training") as tick:

        def progress(p: Progress) -> None:
            tick(p.step, p.steps, f"{p.phase}, loss {p.loss:.2f}" if cli.out.stderr.is_terminal else p.phase)

        result = pretrain(out, settings, resume=not fresh, progress=progress)
    if card:
        from jade_training.pretrain.publish import publish

        result = {**result, **publish(out, result, progress=cli.out.log)}
    cli.out.result({"out": str(out), **result}, lambda: f"saved {out}: {result['steps']} steps")
