"""`jade train` and `jade sft`: weights from what was recorded.

Invariant: thin. The commands parse their options, call `offline` and `sft`, and print what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jade_graph.cli.command import Cli, command, single

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTED = {
    "sft": ("Learn", "Teach roles by demonstrations: a warm start."),
    "train": ("Learn", "One update on exported runs."),
}
train_app, sft_app = single(), single()
SHOWN = ("reward", "rows", "gradient_tokens", "kl_old", "clip_fraction", "entropy", "grad_norm", "plan_loss", "seconds")


@command(train_app, "train")
def train(
    cli: Cli,
    export: Annotated[Path, typer.Argument(help="A folder that jade export wrote.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the new weights go.")],
    backbone: Annotated[str | None, typer.Option(help="The weights that sampled the runs: tiny, a folder ..")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Of the update before (OUT/checkpoint): optimiser and reference go on.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Whose rewards and roles; default: that of the runs.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Performance term: f1, em, f1-yes-no ..")] = None,
    call_cost: Annotated[float | None, typer.Option(help="Cost of each call, in units of the outcome.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Advantages: tree, rloo, grpo or gae.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Of AdamW.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 1,
    ppo: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any hyper-parameter of the update, e.g. lora.rank=8; may be repeated."),
    ] = None,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Allow runs that name another version of the weights.")
    ] = False,
    register: Annotated[bool, typer.Option("--register", help="Register the new weights as a version.")] = False,
) -> None:
    """Update a backbone once on exported runs. jade improve does this in a loop, with rollouts between."""
    from dataclasses import replace

    from jade_training import offline
    from jade_training.cli.overrides import overridden
    from jade_training.improve.registering import start_of
    from jade_training.improve.settings import PPO

    cli.put("backbone", backbone)
    terms = {"outcome": outcome, "call_cost": call_cost}
    given = offline.material(export, preset=preset, **{k: v for k, v in terms.items() if v is not None})
    chosen: dict[str, Any] = {"estimator": estimator, "learning_rate": learning_rate, "epochs": epochs}
    config = replace(
        PPO, **{k: v for k, v in chosen.items() if v is not None}, schedule="constant", warmup=0, seed=cli.settings.seed
    )
    config = overridden(config, ppo or [], elsewhere={"seed": "--set seed"})
    with cli.out.progress(f"training on {len(given.runs)} runs"):
        metrics = offline.train(
            given, start_of(cli.settings), out, config, checkpoint=checkpoint, any_version=any_version
        )
    version = None
    if register:
        from jade_graph.registry import Registry

        version = Registry.of(cli.settings).register(out, tell=cli.out.log)
    described = {"out": str(out), "metrics": metrics, "version": None if version is None else version.as_dict()}
    cli.out.result(described, lambda: _show(out, {k: metrics[k] for k in SHOWN if k in metrics}))


@command(sft_app, "sft")
def sft(
    cli: Cli,
    source: Annotated[
        str,
        typer.Argument(help="What to imitate: a file of jade demonstrations, microworld, or a folder of jade export."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the new weights go.")],
    backbone: Annotated[str | None, typer.Option(help="The start: tiny, a folder, or a hub id.")] = None,
    minimum: Annotated[float, typer.Option(help="Of an export: actions of runs that earned at least this.")] = 0.8,
    count: Annotated[int, typer.Option(min=1, help="Demonstrations of microworld.")] = 2000,
    held_out: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Of a file: share of questions whose loss is told, not learned.")
    ] = 0.05,
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the examples.")] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of passes.")] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 32,
    micro_tokens: Annotated[
        int | None, typer.Option(min=1, help="Examples of like length together, so many tokens at a time.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Of AdamW; default: by the size of the model.")
    ] = None,
    schedule: Annotated[
        Literal["linear", "constant"], typer.Option(help="Whether the rate falls, linearly to 0, or stays.")
    ] = "linear",
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the rate rises.")] = 0,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Train adapters of this rank instead.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision, where the processor has it.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 20,
    keep: Annotated[
        int, typer.Option(min=0, help="Models of the last checkpoints that stay: jade merge FOLDER makes one of them.")
    ] = 0,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of AdamW.")] = 0.0,
    mixture: Annotated[
        Path | None, typer.Option(help="Shares of roles or data sets (jade mix search writes one).")
    ] = None,
    entrodrop: Annotated[
        str | None,
        typer.Option(
            metavar="gmax=.3,q=.5", help="Hide predictable tokens, more as training goes on (docs: entrodrop)."
        ),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Log metrics to MLflow (MLFLOW_TRACKING_URI).")] = False,
    fresh: Annotated[bool, typer.Option(help="Begin again instead of going on from a checkpoint.")] = False,
) -> None:
    """Warm start: fine-tune on demonstrations, or on the actions of runs that went well, with TRL's SFTTrainer.

    Killed at any time, the same command goes on from the last checkpoint.
    """
    import shutil
    from contextlib import ExitStack

    from jade_graph.errors import UsageError
    from jade_graph.registry.place import Place
    from jade_training import offline
    from jade_training.improve.registering import start_of
    from jade_training.improve.tracking import tracked
    from jade_training.learner.ppo import Lora
    from jade_training.merging.kept import kept_models
    from jade_training.mixing.mixture import Mixture
    from jade_training.supervised import sft as tuning
    from jade_training.supervised.entrodrop import EntroDrop

    dropping = None if entrodrop is None else EntroDrop.parse(entrodrop)
    cli.put("backbone", backbone)
    start, seed = start_of(cli.settings), cli.settings.seed
    shares = None if mixture is None else Mixture.read(mixture)
    if shares is not None and not Path(source).is_file():
        raise UsageError(
            "--mixture goes with a file of demonstrations.",
            code="MIXTURE_SOURCE",
            hint="jade demonstrations .. --out FILE",
        )
    if Path(source).is_file():
        found = offline.from_file(Path(source), start, share=held_out, mixture=shares, seed=seed)
    else:
        found = offline.Examples(offline.examples(source, start, count=count, minimum=minimum, seed=seed))
    if fresh:
        shutil.rmtree(out / tuning.CHECKPOINT, ignore_errors=True)
    place = Place.find(settings=cli.settings) if mlflow else None
    chosen = {"source": source, "examples": len(found.pairs), "start": str(start), "lora": lora, "epochs": epochs}
    chosen |= {"steps": steps, "batch_rows": batch_rows, "learning_rate": learning_rate, "seed": seed}
    chosen |= {"weight_decay": weight_decay, "entrodrop": entrodrop, "schedule": schedule}
    chosen |= {"mixture": None if shares is None else shares.as_dict()}
    with ExitStack() as stack:
        log = stack.enter_context(tracked(place, out, chosen, tell=cli.out.log))
        tick = stack.enter_context(cli.out.progress(f"imitating {len(found.pairs)} actions", "steps"))
        metrics = tuning.sft(
            start,
            found.pairs,
            out,
            epochs=epochs,
            steps=steps,
            batch_rows=batch_rows,
            micro_tokens=micro_tokens,
            learning_rate=learning_rate,
            warmup_steps=warmup,
            lora=None if lora is None else Lora(lora, 2 * lora),
            bf16=bf16,
            held_out=found.held_out,
            profile=found.profile,
            progress=tick,
            log=log if mlflow else None,
            save_every=save_every,
            keep=keep,
            schedule=schedule,
            weight_decay=weight_decay,
            entrodrop=dropping,
            cache=cli.settings.data_path / "entropies",
            seed=seed,
        )
        log(metrics, int(metrics["steps"]))
    models = [str(folder) for folder in kept_models(out)] if keep else []
    described = {"out": str(out), "metrics": metrics, "models": models}
    cli.out.result(described, lambda: _show(out, metrics, f"jade merge {out}" if models else None))


def _show(out: Path, metrics: Mapping[str, float], merge: str | None = None) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    rows = [(name.replace("_", " "), f"{value:,.4g}") for name, value in metrics.items()]
    following = merge or f"jade eval .. --backbone {out}"
    return [table(("", ""), rows, title=f"saved {out}"), Text(f"Next: {following}", style="dim")]
