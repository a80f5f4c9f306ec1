"""`jade split`: parts of a data set to learn from, to choose with, and to report on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import UsageError

app = single()


@command(app, "split")
def split(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="A data set: a file, a folder, or a name.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where a folder is made for each part.")],
    share: Annotated[
        list[str] | None, typer.Option(metavar="PART=SHARE", help="E.g. test=.2; repeated. The rest is train.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Where it cannot be told from the data.")] = None,
) -> None:
    """Split questions so that no part knows a fact of another: those that share a gold passage, a title or a named
    answer stay together, and train is searched without the gold passages of the others.
    """
    from jade_graph.data import load_dataset
    from jade_graph.data.splitting import save_dataset
    from jade_graph.data.splitting import split as parts_of
    from jade_graph.settings.manifest import manifest

    shares = dict(map(_share, share or ["test=.2"]))
    data = load_dataset(dataset, format=format)
    cli.noted(data)
    seed = cli.settings.seed
    parts = parts_of(data, shares, seed=seed)
    rows = []
    for name, part in parts.items():
        about = manifest(dataset=data.name, dataset_id=data.dataset_id, part=name, shares=shares, seed=seed)
        save_dataset(part, out / name, manifest=about)
        rows.append({"part": name, "folder": str(out / name), "questions": len(part), "passages": len(part.passages)})

    def show() -> Any:
        from jade_graph.cli.console import table

        columns = ("part", "questions", "passages", "folder")
        shown = [(r["part"], r["questions"], r["passages"], r["folder"]) for r in rows]
        return table(columns, shown, right="questions passages", title=f"{data.name}, seed {seed}")

    cli.out.result({"dataset": data.name, "seed": seed, "shares": shares, "parts": rows}, show)


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name.strip(), float(share)
    except ValueError:
        raise UsageError(f"{text!r} is no part with a share.", code="BAD_SPLIT", hint="--share test=.2") from None
