"""`jade merge`: several versions become one.

Invariant: thin. The command parses its options, calls `merging`, registers what came out, and prints it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

LISTED = {"merge": ("Ship", "Several versions become one.")}
app = single()


@command(app, "merge")
def merge(
    cli: Cli,
    parents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|RUN|VERSION",
            help="A registered model (its last versions), the folder of jade improve (its last models), or versions "
            "and folders, the oldest first. Default: the registered model.",
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "--window", min=1, help="How many of the last are merged; default: 8.")
    ] = None,
    decay: Annotated[
        str | None,
        typer.Option(
            help="The decay of the learning rate that is made up for: linear (default), 1-sqrt, cosine, inverse-sqrt, "
            "ema, or numbers such as 1,.7,.2.",
        ),
    ] = None,
    coefficients: Annotated[str | None, typer.Option(help="Of the parents instead, summing to 1: .5,.3,.2.")] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Prompt profile of the merge, where its parents differ: a warm start and its pretrained start."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a folder, and register nothing.")] = None,
    challenger: Annotated[bool, typer.Option(help="Point the alias challenger at the new version.")] = True,
) -> None:
    """Merge versions into one by a linear combination of their weights, and register it with its parents.

    Of checkpoints of one run, a decay of the learning rate is made afterwards: no run has to end for it (WSM). Nothing
    is said of whether it is better: jade diff and jade promote do.
    """
    import json

    from jade_graph.errors import UsageError
    from jade_graph.registry import Registry
    from jade_graph.registry.versions import MERGE
    from jade_training.merging.curves import coefficients as of_decay
    from jade_training.merging.curves import decay_weights
    from jade_training.merging.merge import merge as merged
    from jade_training.merging.parents import parents_of

    if decay is not None and coefficients is not None:
        raise UsageError(
            "--decay and --coefficients both say what the parents weigh.", code="MERGE_TWICE", hint="one of them"
        )
    registry = Registry.of(cli.settings)
    found = parents_of(registry, parents or [], last)
    if last is not None and len(found) < last:
        cli.out.warn(f"there are {len(found)} to merge, fewer than the {last} asked for.")
    how = "coefficients" if coefficients is not None else decay or "linear"
    weigh = _numbers(coefficients) if coefficients is not None else of_decay(decay_weights(how, len(found) - 1))

    def write(folder: Path) -> dict[str, Any]:
        return merged(found, weigh, folder, how=how, profile=profile, tell=cli.out.log).as_dict()

    if out is not None:
        told: dict[str, Any] = {"out": str(out), "merge": write(out), "version": None}
        cli.out.result(told, lambda: [*_table(told["merge"]), f"written {out}", f"Next: jade register {out}"])
        return
    known = {version.number for version in registry.versions()}
    with registry.shelf.staging() as staging:
        about = write(staging / registry.model)
        version = registry.register(
            staging / registry.model,
            manifest={"merge": about},
            parents=[p.content for p in found],
            tags={MERGE: json.dumps(about)},
            challenger=challenger,
            tell=cli.out.log,
        )
    new = version.number not in known
    told = {"out": None, "merge": about, "version": version.as_dict(), "new": new}
    what = "registered as" if new else "the same weights as"
    following = f"Next: jade diff champion {version.number}, jade promote {version.number}"
    cli.out.result(told, lambda: [*_table(about), f"{what} version {version.number}: {version.content}", following])


def _numbers(text: str) -> list[float]:
    from jade_graph.errors import UsageError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r} are no numbers.", code="BAD_COEFFICIENTS", hint=".5,.3,.2") from None


def _table(about: dict[str, Any]) -> list[Any]:
    from jade_graph.cli.console import table

    rows = [(p["name"], p["content"], f"{p['coefficient']:.4f}") for p in about["parents"]]
    return [table(("parent", "weights", "weighs"), rows, title=f"merged: {about['decay']}", right="weighs")]
