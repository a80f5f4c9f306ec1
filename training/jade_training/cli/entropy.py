"""`jade data entropy`: how sure a model is of the tokens that it would be taught.

Invariant: thin. The command parses its options, calls `entrodrop`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

LISTED = {"data": ("Data", "How sure a model is of what it would be taught.")}
app = group("data", "Look at training data.")
_BINS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@command(app)
def entropy(
    cli: Cli,
    source: Annotated[str, typer.Argument(metavar="DATASET", help="A file of jade demonstrations, or microworld.")],
    backbone: Annotated[str | None, typer.Option(help="The start: tiny, a folder, or a hub id.")] = None,
    entrodrop: Annotated[str, typer.Option(metavar="gmax=.3,q=.5", help="As jade sft takes it.")] = "",
    show: Annotated[int, typer.Option(min=0, help="Examples that are shown, with what would be hidden.")] = 5,
    limit: Annotated[int, typer.Option(min=1, help="Examples that are read, drawn with the seed.")] = 400,
) -> None:
    """The entropy of a start model at every action token: a histogram, and which tokens EntroDrop would hide."""
    import random

    import torch

    from jade_graph.backbones.codec import Codec
    from jade_graph.backbones.folders import content_version
    from jade_graph.backbones.weights import choose_device, load_model
    from jade_training import offline
    from jade_training.improve.registering import start_of
    from jade_training.supervised.entrodrop import EntroDrop, eligible, entropies

    settings = EntroDrop.parse(entrodrop)
    cli.put("backbone", backbone)
    start, seed = start_of(cli.settings), cli.settings.seed
    if Path(source).is_file():
        examples = offline.from_file(Path(source), start, share=0.0).pairs
    else:
        examples = offline.examples(source, start, count=limit, minimum=0.0, seed=seed)
    examples = random.Random(f"entropy {seed}").sample(examples, min(limit, len(examples)))
    codec = Codec.from_folder(start)
    with cli.out.progress(f"reading {len(examples)} examples"):
        model = load_model(start, choose_device(None), torch.float32)
        found = entropies(model, examples, name=content_version(start), cache=cli.settings.data_path / "entropies")
    which = eligible(settings, found, examples, frozenset(codec.tokenizer.all_special_ids))
    everything = torch.cat(found)
    counts = [
        int(((everything >= a) & (everything < b)).sum())
        for a, b in zip(_BINS, (*_BINS[1:], float("inf")), strict=True)
    ]
    told: dict[str, Any] = {
        "examples": len(examples),
        "tokens": len(everything),
        "mean": float(everything.mean()),
        "threshold": which.threshold,
        "eligible": which.share,
        "histogram": [{"from": a, "tokens": n} for a, n in zip(_BINS, counts, strict=True)],
    }
    pieces = [
        [(codec.tokenizer.decode([t]), hidden) for t, hidden in zip(action, row, strict=True)]
        for (_, action), row in list(zip(examples, which.rows, strict=True))[:show]
    ]
    told["shown"] = [[{"token": t, "eligible": e} for t, e in action] for action in pieces]
    cli.out.result(told, lambda: _show(told, pieces))


def _show(told: dict[str, Any], pieces: list[list[tuple[str, bool]]]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    most = max((row["tokens"] for row in told["histogram"]), default=1) or 1
    rows = [
        (f"{row['from']:g}", f"{row['tokens']:,}", "█" * round(40 * row["tokens"] / most)) for row in told["histogram"]
    ]
    out: list[Any] = [
        table(
            ("nats from", "tokens", ""), rows, title=f"entropy of {told['tokens']:,} action tokens", right="nats tokens"
        ),
        Text(
            f"{told['eligible']:.1%} may be hidden: those up to {told['threshold']:.3g} nats. Underlined below; bold "
            "are the others."
        ),
    ]
    for action in pieces:
        line = Text()
        for token, hidden in action:
            line.append(token.replace("\n", "⏎"), style="dim underline" if hidden else "bold")
        out.append(line)
    return out
