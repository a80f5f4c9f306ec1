"""`jade index`: a folder of documents or a data set becomes a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    from jade_graph.retrieval.chunking import Chunking
    from jade_graph.retrieval.corpus import CorpusManifest
    from jade_graph.retrieval.documents import Document, Skipped
    from jade_graph.types import Passage

app = single()


@command(app)
def index(
    cli: Cli,
    path: Annotated[
        str, typer.Argument(help="A folder or file (text, Markdown, HTML, PDF, JSONL), a data set, or SCHEME:REST.")
    ],
    corpus: Annotated[str | None, typer.Option(help="Its name. [default: the path's own name]")] = None,
    encoder: Annotated[str | None, typer.Option(help="Text encoder: minilm, hash:256, hf:FOLDER_OR_ID.")] = None,
    words: Annotated[int | None, typer.Option(help="Most words of a passage cut from a document.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Words that neighbouring passages share.")] = None,
    replace_encoder: Annotated[
        bool, typer.Option("--replace-encoder", help="Embed an existing corpus anew with another encoder.")
    ] = False,
) -> None:
    """Make documents or a data set searchable, by words (BM25) and by meaning (vectors).

    Indexing again does only what has changed; a build that was cut off goes on where it stopped.
    """
    from jade_graph.retrieval.corpus import build_corpus

    cli.put("encoder", encoder)
    name = corpus or _name(path)
    items, skipped = _read(cli, path)
    with indexing(cli) as progress:
        manifest = build_corpus(
            items,
            name,
            cli.settings.data_path,
            cli.settings.encoder,
            chunking=_chunking(words, overlap),
            replace_encoder=replace_encoder,
            source=path,
            skipped=skipped,
            progress=progress,
        )
    for left in skipped[:5]:
        cli.out.warn(f"left out {left.source}: {left.reason}")
    if len(skipped) > 5:
        cli.out.warn(f"and {len(skipped) - 5} more: jade corpora show {name}")
    cli.out.result(manifest.as_dict(), lambda: _told(manifest))


def _name(path: str) -> str:
    from jade_graph.assembly import corpus_name

    return corpus_name(Path(path).name or Path(path).resolve().name)


def _read(cli: Cli, path: str) -> tuple[Sequence[Passage | Document], Sequence[Skipped]]:
    from jade_graph.data import detect_format, load_dataset
    from jade_graph.retrieval.documents import read_documents

    if not Path(path).exists() and ":" in path:
        return load_dataset(path).passages, ()
    kind = detect_format(Path(path)) if Path(path).exists() else None
    if kind is not None:
        data = load_dataset(path)
        if not data.passages:
            raise UsageError(
                f"the data set {path!r} has questions and no passages.",
                code="NO_PASSAGES",
                hint="index the corpus that it is asked over",
            )
        cli.out.log(f"{path} is a data set ({kind}): {len(data.passages):,} passages")
        return data.passages, ()
    with cli.out.progress("reading documents") as tick:
        found = read_documents(path, progress=tick)
    cli.out.log(f"read {len(found.documents):,} documents from {found.files:,} files")
    return found.documents, found.skipped


def _chunking(words: int | None, overlap: int | None) -> Chunking | None:
    from jade_graph.retrieval.chunking import Chunking

    given = {key: value for key, value in (("size", words), ("overlap", overlap)) if value is not None}
    return Chunking(**given) if given else None


def _told(manifest: CorpusManifest) -> Any:
    from rich.text import Text

    what = f"{manifest.passages:,} passages of {manifest.documents:,} documents"
    done = f"{manifest.embedded:,} embedded, {manifest.reused:,} kept, {manifest.removed:,} removed"
    return Text.assemble(
        ("corpus ", "dim"), (manifest.name, "bold"), f": {what} ({done}), encoder {manifest.encoder_spec}\n",
        (f'Try: jade search {manifest.name} "..", jade ask ".." --corpus {manifest.name}', "dim"),
    )  # fmt: skip
