"""`jade index`: a folder of documents or a data set becomes a corpus."""

from __future__ import annotations

from collections import Counter
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
    from jade_graph.retrieval.reading import Document, Note, Skipped
    from jade_graph.types import Passage

app = single()


@command(app)
def index(
    cli: Cli,
    path: Annotated[str, typer.Argument(help="A folder or file of documents, a data set, or SCHEME:REST.")],
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
    items, skipped, notes, files = _read(cli, path)
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
            notes=notes,
            progress=progress,
        )
    for told in notes[:MOST]:
        cli.out.warn(f"{told.source}: {told.text}")
    if len(notes) > MOST:
        cli.out.warn(f"and {len(notes) - MOST} notes more: jade corpora show {name}")
    for line in _summary(skipped, files):
        cli.out.warn(line)
    if skipped:
        cli.out.warn(f"each with its reason: jade corpora show {name}")
    cli.out.result(manifest.as_dict() | {"files": files}, lambda: _told(manifest))


MOST = 5
"""Files named one by one; the others are counted."""


def _summary(skipped: Sequence[Skipped], files: int) -> list[str]:
    """How many files were read, and what was left out: a few by name, the others by kind."""
    if not skipped:
        return []
    named = [s for s in skipped if not s.kind]
    unknown = [s for s in skipped if s.kind == "unknown"]
    hidden = len(skipped) - len(named) - len(unknown)
    lines = [f"left out {s.source}: {s.reason}" for s in named[:MOST]]
    if len(named) > MOST:
        lines.append(f"and {len(named) - MOST} more that cannot be read")
    if unknown:
        counted = Counter(Path(s.source).suffix.lower() or "no suffix" for s in unknown)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in counted.most_common(8))
        names = ", ".join(s.source for s in unknown[:MOST]) + (", .." if len(unknown) > MOST else "")
        lines.append(f"left out {len(unknown)} of no known kind ({kinds}): {names}")
    if hidden:
        lines.append(f"left out {hidden} hidden")
    lines.append(f"read {files:,} files, left out {len(skipped):,}")
    return lines


def _name(path: str) -> str:
    from jade_graph.assembly import corpus_name

    return corpus_name(Path(path).name or Path(path).resolve().name)


def _read(cli: Cli, path: str) -> tuple[Sequence[Passage | Document], Sequence[Skipped], Sequence[Note], int]:
    from jade_graph.data import detect_format, load_dataset
    from jade_graph.retrieval.documents import read_documents

    if not Path(path).exists() and ":" in path:
        return load_dataset(path).passages, (), (), 0
    kind = detect_format(Path(path)) if Path(path).exists() else None
    if kind not in (None, "open"):  # questions with their answers alone are documents: a page of frequent ones
        data = load_dataset(path)
        if not data.passages:
            raise UsageError(
                f"the data set {path!r} has questions and no passages.",
                code="NO_PASSAGES",
                hint="index the corpus that it is asked over",
            )
        cli.out.log(f"{path} is a data set ({kind}): {len(data.passages):,} passages")
        return data.passages, (), (), 0
    with cli.out.progress("reading", "documents") as tick:
        found = read_documents(path, progress=tick)
    cli.out.log(f"read {len(found.documents):,} documents from {found.files:,} files")
    return found.documents, found.skipped, found.notes, found.files


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
