"""`jade models make`: the recipe of `smol`, from the data to the adapter that ships.

Invariant: thin. The command parses its options, calls `real.recipe`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "make")
def make(
    cli: Cli,
    data: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With musique_train100, 2wiki_train500, hotpot_train100.")
    ],
    out: Annotated[Path, typer.Option(help="Where everything that is made lies.")] = Path("smol"),
    seed: Annotated[int, typer.Option(help="Of the split, the demonstrations and their order.")] = 0,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the bundled adapter was made with two.")] = 2,
) -> None:
    """Make smol: split real questions, write demonstrations of every role, teach SmolLM2 as a LoRA adapter.

    About an hour on two cores. Killed at any time, the same command goes on where it stopped. Where evaluations lie in
    OUT/rows (PRESET.jsonl, of jade eval --out), the card in OUT/ships has their figures: the command again writes it.
    """
    import torch

    from jade_training.real.card import card
    from jade_training.real.recipe import ADAPTER, Recipe, install
    from jade_training.real.recipe import make as made

    torch.set_num_threads(threads)
    with cli.out.progress("making smol") as tick:

        def tell(what: str, done: int, of: int) -> None:
            tick(done, of, what)

        figures = made(data, out, cli.settings.data_path, Recipe(seed=seed, rank=rank), tell=tell)
    install(out, out / "ships", card(out))
    told = {"out": str(out), "adapter": str(out / ADAPTER), **figures}
    cli.out.result(told, lambda: _show(out, figures))


def _show(out: Path, figures: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    training = figures["training"]
    roles = sorted({name.split()[1] for name in training if name.startswith("held_out")})
    rows = [
        (role, figures["demonstrations"].get(role, 0), f"{training[f'held_out {role} before']:.3f}",
         f"{training[f'held_out {role}']:.3f}")
        for role in roles
    ]  # fmt: skip
    columns = ("role", "demonstrations", "loss before", "after")
    return [
        table(columns, rows, right="demonstrations loss before after", title="nats a token, on what was held out"),
        Text(f"Next: jade eval {out / 'data' / 'test'} --backbone {out / 'taught'}", style="dim"),
    ]
