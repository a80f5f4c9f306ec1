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
def show(
    cli: Cli,
    name: Name,
    passages: Annotated[bool, typer.Option("--passages", metavar="", help="Show its passages, too.")] = False,
    of: Annotated[str | None, typer.Option(metavar="TEXT", help="Only passages with this in id or source.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many passages; 0: all.")] = 20,
    width: Annotated[int, typer.Option(min=0, help="Show so many characters of each; 0: all.")] = 160,
) -> None:
    """Show what a corpus was made from and with, what was left out and guessed, and how texts were cut."""
    from jade_graph.cli.console import table

    manifest = _require(cli, name).as_dict()
    skipped, notes = manifest.pop("skipped"), manifest.pop("notes")
    cut, found = _passages(cli, name, of, limit) if passages or of is not None else ([], 0)

    def view() -> list[Any]:
        shown = manifest | {"created_at": _when(manifest["created_at"])}
        parts = [table(("field", "value"), list(shown.items()), title=name)]
        if skipped:
            parts.append(table(("left out", "reason"), [(s["source"], s["reason"]) for s in skipped]))
        if notes:
            parts.append(table(("read", "note"), [(n["source"], n["note"]) for n in notes]))
        if cut:
            rows = [
                (p["id"], p["title"], len(p["text"].split()), len(p["text"]), _start(p["text"], width)) for p in cut
            ]
            title = f"{len(cut)} of {found:,} passages"
            parts.append(
                table(("id", "title", "words", "characters", "text"), rows, title=title, right="words characters")
            )
        return parts

    told = manifest | {"skipped": skipped, "notes": notes}
    cli.out.result(told | ({"cut": cut, "found": found} if passages or of is not None else {}), view)


def _passages(cli: Cli, name: str, of: str | None, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The first passages that are asked for, and how many there are of them."""
    from jade_graph.retrieval.corpus import open_corpus

    corpus = open_corpus(name, cli.settings.data_path, mode="bm25")
    corpus.close()
    found = [p for p in corpus.passages if of is None or of in p.id or of in str(p.metadata.get("source", ""))]
    cut = found[: limit or len(found)]
    return [{"id": p.id, "title": p.title, "text": p.text, "metadata": dict(p.metadata)} for p in cut], len(found)


def _start(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if not width or len(flat) <= width else flat[: width - 1] + "…"


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
