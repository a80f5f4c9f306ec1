"""`jade corpora`: the corpora in the data folder."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("corpora", "List, show or remove corpora.")
Name = Annotated[str, typer.Argument(help="A corpus; jade corpora list.")]


@command(app, "list")
def list_(cli: Cli) -> None:
    """List the corpora in the data folder."""
    from jade_graph.retrieval.manifest import list_corpora

    found = list_corpora(cli.settings.data_path)

    def show() -> Any:
        from rich.text import Text

        from jade_graph.cli.console import table

        if not found:
            return Text("No corpora yet. Try: jade index PATH --corpus NAME", style="dim")
        columns = ("corpus", "passages", "documents", "encoder", "made", "from")
        rows = [(m.name, m.passages, m.documents, m.encoder_spec, _when(m.created_at), m.source) for m in found]
        return table(columns, rows, right="passages documents")

    cli.out.result({"corpora": [m.as_dict() for m in found]}, show)


@command(app)
def show(cli: Cli, name: Name) -> None:
    """Show what a corpus was made from and with, and what was left out."""
    from jade_graph.cli.console import table

    manifest = _require(cli, name).as_dict()
    skipped = manifest.pop("skipped")

    def view() -> list[Any]:
        shown = manifest | {"created_at": _when(manifest["created_at"])}
        parts = [table(("field", "value"), list(shown.items()), title=name)]
        if skipped:
            parts.append(table(("left out", "reason"), [(s["source"], s["reason"]) for s in skipped]))
        return parts

    cli.out.result(manifest | {"skipped": skipped}, view)


@command(app)
def remove(cli: Cli, name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a corpus: its vectors, words and passages. The documents stay."""
    from jade_graph.retrieval.corpus import remove_corpus

    passages = _require(cli, name).passages
    if not yes and not typer.confirm(f"Delete the corpus {name} ({passages:,} passages)?", err=True):
        cli.out.log("kept")
        raise typer.Exit(1)
    remove_corpus(name, cli.settings.data_path)
    cli.out.result({"removed": name, "passages": passages}, lambda: f"removed {name}")


def _require(cli: Cli, name: str) -> Any:
    """Its manifest. Raises `RetrievalError` UNKNOWN_CORPUS."""
    from jade_graph.errors import RetrievalError
    from jade_graph.retrieval.manifest import corpus_folder, list_corpora, read_manifest

    root = cli.settings.data_path
    manifest = read_manifest(corpus_folder(name, root))
    if manifest is None:
        raise RetrievalError(
            f"there is no corpus {name!r} under {str(root)!r}.",
            code="UNKNOWN_CORPUS",
            known=[m.name for m in list_corpora(root)],
            hint=f"jade index PATH --corpus {name}",
        )
    return manifest


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
