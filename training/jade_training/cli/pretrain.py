"""Train a bundled model, measure it, and write its card.

Invariant: thin. The command parses its options, calls `pretrain` and `publish`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import UsageError

app = single()
SHORT_STEPS, HASTY_STEPS = 600, 80


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
    ask: Annotated[
        bool, typer.Option("--ask", help="Make jade-tiny-ask: M-ASK's and Search-R1's roles, from jade-tiny-hasty.")
    ] = False,
    fresh: Annotated[bool, typer.Option(help="Begin again instead of resuming a checkpoint in the folder.")] = False,
    card: Annotated[bool, typer.Option(help="Measure the model and write its card (minutes).")] = True,
) -> None:
    """Train jade-tiny from scratch. Killed at any time, the same command goes on from the last checkpoint.

    With --ask the bundled jade-tiny-hasty is taught further; that takes minutes, and a kill repeats it.
    """
    from dataclasses import replace

    import torch

    from jade_training.pretrain.steps import Progress
    from jade_training.pretrain.train import Settings, pretrain

    if ask and hasty:
        raise UsageError("--ask and --hasty make different models.", code="PRETRAIN_WHICH", hint="one of the two")
    torch.set_num_threads(threads)
    settings = Settings(seed=seed, short_steps=SHORT_STEPS)
    if steps is not None:
        settings = replace(settings, steps=steps, short_steps=SHORT_STEPS * steps // settings.steps)
    if hasty:
        settings = replace(settings, hasty_steps=HASTY_STEPS)
    with cli.out.progress("training", "steps") as tick:

        def progress(p: Progress) -> None:
            tick(p.step, p.steps, f"{p.phase}, loss {p.loss:.2f}" if cli.out.stderr.is_terminal else p.phase)

        if ask:
            from jade_training.pretrain.ask_stage import AskSettings, teach

            chosen = AskSettings(seed=seed) if steps is None else AskSettings(seed=seed, steps=steps)
            result = teach(out, chosen, progress=progress)
        else:
            result = pretrain(out, settings, resume=not fresh, progress=progress)
    if card and ask:
        from jade_training.pretrain import ask_card

        result = {**result, **ask_card.publish(out, result, progress=cli.out.log)}
    elif card:
        from jade_training.pretrain.publish import publish

        result = {**result, **publish(out, result, progress=cli.out.log)}
    cli.out.result({"out": str(out), **result}, lambda: f"saved {out}: {result['steps']} steps")
