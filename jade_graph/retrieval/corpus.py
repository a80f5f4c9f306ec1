"""Corpora: indexes on disk, built once and opened many times.

Invariant: a build can be cut off at any point and started again; it then does only what is missing. Readers see the
last whole corpus, never half of a newer one, and never one that was made with another encoder than theirs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.chunking import Chunking, chunk_text
from jade_graph.retrieval.dense import (
    EXACT_LIMIT,
    ChromaStore,
    ChromaVectors,
    ExactVectors,
    VectorSearch,
    chroma_store,
    encode_checked,
    open_store,
)
from jade_graph.retrieval.documents import Document, Skipped
from jade_graph.retrieval.encoder import DEFAULT, Encoder, load_encoder
from jade_graph.retrieval.identity import check_mode, content_id, corpus_id, distinct, row_id, texts
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.retrieval.lock import write_lock
from jade_graph.retrieval.manifest import (
    CorpusManifest,
    corpora_folder,
    corpus_folder,
    list_corpora,
    read_manifest,
)
from jade_graph.types import Passage

__all__ = ["CorpusManifest", "Progress", "build_corpus", "list_corpora", "open_corpus", "passages_of", "remove_corpus"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); the phases are "embed", "words" and "save"."""

_SLICE = 256  # passages embedded between two writes: what a crash can lose
_PASSAGES = "passages.jsonl"


def build_corpus(
    items: Iterable[Passage | Document],
    name: str,
    root: Path | str,
    encoder: Encoder | str = DEFAULT,
    *,
    chunking: Chunking | None = None,
    replace_encoder: bool = False,
    source: str = "",
    skipped: Sequence[Skipped] = (),
    progress: Progress | None = None,
) -> CorpusManifest:
    """Make the corpus `name` hold exactly these items. What is already embedded is not embedded again.

    Args:
        items: passages are indexed as they are; documents are cut by `chunking`.
        root: the data folder; the corpus lives in ROOT/corpora/NAME.
        encoder: an encoder or its spec string.
        replace_encoder: allow another encoder than the corpus had: everything is embedded anew.
        source: where the items came from, for the manifest; `skipped` what could not be read there.

    Raises:
        UsageError: BAD_CORPUS_NAME, UNKNOWN_ENCODER.
        DataError: PASSAGE_ID.
        RetrievalError: CORPUS_EMPTY, CORPUS_LOCKED, ENCODER_MISMATCH, CORPUS_BROKEN.
    """
    folder = corpus_folder(name, root)
    used = load_encoder(encoder) if isinstance(encoder, str) else encoder
    cut = chunking or Chunking()
    passages, documents, chunked = _collect(items, cut)
    kept, dropped = distinct(passages)
    with write_lock(folder):
        old = read_manifest(folder)
        if old is not None and old.encoder != used.id and not replace_encoder:
            raise _encoder_mismatch(name, old, used)
        with chroma_store(folder / "chroma", used.id) as store:
            rows, embedded = _embed(kept, store, used, progress)
            generation = _write_words(folder / "bm25", kept, progress)
            content = content_id(kept)
            settings = cut.as_dict() if chunked else None
            manifest = CorpusManifest(
                name=name,
                corpus_id=corpus_id(content, encoder=used.id, chunking=settings),
                content_id=content,
                generation=generation,
                encoder=used.id,
                encoder_spec=used.spec,
                dim=used.dim,
                dtype=str(getattr(used, "dtype", "float32")),
                passages=len(kept),
                documents=documents,
                chunking=settings,
                source=source,
                skipped=tuple({"source": s.source, "reason": s.reason} for s in skipped),
                dropped=dropped,
                embedded=embedded,
                reused=len(rows) - embedded,
            )
            stale = sorted(store.rows() - rows)
            manifest = replace(manifest, removed=len(stale))
            manifest.write(folder)
            # Only now: until here readers of the former corpus may still have needed these.
            store.delete(stale)
            store.drop_other_collections()
            for left in (folder / "bm25").iterdir():
                if left.name != generation:
                    shutil.rmtree(left, ignore_errors=True)
        if progress is not None:
            progress("save", 1, 1)
    return manifest


def open_corpus(
    name: str, root: Path | str, encoder: Encoder | str | None = None, *, mode: str = "hybrid"
) -> LocalRetriever:
    """Open a corpus for searching.

    Args:
        encoder: None takes the one that the corpus was built with; another one is an error.
        mode: "hybrid" (BM25 and vectors fused by RRF), "dense" or "bm25" (which loads no encoder and no vectors).

    Raises:
        UsageError: BAD_CORPUS_NAME, BAD_RETRIEVAL_MODE, UNKNOWN_ENCODER.
        RetrievalError: UNKNOWN_CORPUS, CORPUS_UNFINISHED, CORPUS_BROKEN, ENCODER_MISMATCH, ENCODER_MISSING.
    """
    checked = check_mode(mode)
    folder = corpus_folder(name, root)
    manifest = _manifest_of(name, root, folder)
    used: Encoder | None = None
    if checked != "bm25" or encoder is not None:
        used = encoder if isinstance(encoder, Encoder) else load_encoder(encoder or manifest.encoder_spec)
        if used.id != manifest.encoder:
            raise _encoder_mismatch(name, manifest, used)
    while True:
        try:
            passages, words = _read_words(folder, manifest, words=checked != "dense")
            vectors, close = (None, None) if checked == "bm25" else _open_vectors(folder, manifest, passages)
            break
        except RetrievalError:
            # A writer may have put a newer corpus in the place of the one we were reading.
            newer = read_manifest(folder)
            if newer is None or newer.generation == manifest.generation or newer.encoder != manifest.encoder:
                raise
            manifest = newer
    return LocalRetriever(
        passages,
        corpus_id=corpus_id(manifest.content_id, encoder=manifest.encoder, mode=checked, chunking=manifest.chunking),
        mode=checked,
        bm25=words,
        vectors=vectors,
        encoder=used if checked != "bm25" else None,
        name=name,
        on_close=close,
    )


def remove_corpus(name: str, root: Path | str) -> None:
    """Delete a corpus and its folder. Raises UNKNOWN_CORPUS, CORPUS_LOCKED."""
    folder = corpus_folder(name, root)
    if not folder.is_dir():
        raise _unknown_corpus(name, root)
    with write_lock(folder):
        (folder / "manifest.json").unlink(missing_ok=True)
        for part in ("chroma", "bm25"):
            shutil.rmtree(folder / part, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def passages_of(document: Document, chunking: Chunking | None = None) -> list[Passage]:
    """A document cut into passages. A document of one chunk keeps its id; of more, `#1`, `#2` .. are added."""
    chunks = chunk_text(document.text, chunking, markdown=document.markdown)
    if not chunks and document.title:
        return [Passage(document.id, "", document.title, metadata={**document.metadata, "source": document.source})]
    passages = []
    for number, chunk in enumerate(chunks, start=1):
        path = [t for t in (document.title, *chunk.headings) if t]
        title = " > ".join(dict.fromkeys(path))
        key = document.id if len(chunks) == 1 else f"{document.id}#{number}"
        metadata: dict[str, Any] = {**document.metadata, "source": document.source}
        passages.append(Passage(key, chunk.text, title, metadata=metadata))
    return passages


def _collect(items: Iterable[Passage | Document], chunking: Chunking) -> tuple[list[Passage], int, bool]:
    """Passages, number of items, and whether any was cut."""
    passages: list[Passage] = []
    count, chunked = 0, False
    for item in items:
        count += 1
        if isinstance(item, Passage):
            passages.append(item)
        else:
            passages.extend(passages_of(item, chunking))
            chunked = True
    return passages, count, chunked


def _embed(
    passages: Sequence[Passage], store: ChromaStore, encoder: Encoder, progress: Progress | None
) -> tuple[set[str], int]:
    """Write the vectors that are not there yet. Returns every row of these passages, and how many were new."""
    by_row = {row_id(p): p for p in passages}
    present = store.rows()
    # Texts of like length together: a batch is as slow as its longest text.
    missing = sorted((row for row in by_row if row not in present), key=lambda row: len(str(by_row[row])))
    for start in range(0, len(missing), _SLICE):
        rows = missing[start : start + _SLICE]
        batch = [by_row[row] for row in rows]
        vectors = encode_checked(encoder, texts(batch))
        store.upsert(rows, vectors, [p.text for p in batch], [p.title for p in batch])
        if progress is not None:
            progress("embed", start + len(rows), len(missing))
    return set(by_row), len(missing)


def _write_words(folder: Path, passages: Sequence[Passage], progress: Progress | None) -> str:
    """Passages and BM25 in a folder named by what is in it. Returns that name."""
    lines = "".join(json.dumps(_record(p), ensure_ascii=False, default=str) + "\n" for p in passages)
    generation = hashlib.sha256(lines.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
    final = folder / generation
    if not final.is_dir():
        draft = folder / f".{generation}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / _PASSAGES).write_text(lines, encoding="utf-8", errors="surrogatepass", newline="\n")
        Bm25.build(texts(passages)).save(draft)
        draft.replace(final)
    if progress is not None:
        progress("words", len(passages), len(passages))
    return generation


def _record(passage: Passage) -> dict[str, Any]:
    record: dict[str, Any] = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {**record, "metadata": dict(passage.metadata)} if passage.metadata else record


def _read_words(folder: Path, manifest: CorpusManifest, *, words: bool) -> tuple[list[Passage], Bm25 | None]:
    where = folder / "bm25" / manifest.generation
    try:
        with (where / _PASSAGES).open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            passages = [Passage(**json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError) as error:
        raise RetrievalError(
            f"the passages of the corpus {manifest.name!r} cannot be read: {error}",
            code="CORPUS_BROKEN",
            hint=f"jade index PATH --corpus {manifest.name}",
        ) from error
    return passages, Bm25.load(where) if words else None


def _open_vectors(
    folder: Path, manifest: CorpusManifest, passages: Sequence[Passage]
) -> tuple[VectorSearch, Callable[[], None] | None]:
    rows = [row_id(p) for p in passages]
    store = open_store(folder / "chroma", manifest.encoder, create=False)
    if len(passages) <= EXACT_LIMIT:
        try:
            return ExactVectors(store.vectors(rows)), None
        finally:
            store.close()
    positions: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault(row, []).append(position)
    return ChromaVectors(store, positions), store.close


def _manifest_of(name: str, root: Path | str, folder: Path) -> CorpusManifest:
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    if folder.is_dir():
        raise RetrievalError(
            f"the corpus {name!r} was never finished: its build was cut off, or is still at work.",
            code="CORPUS_UNFINISHED",
            hint=f"jade index PATH --corpus {name} (it goes on where it stopped)",
        )
    raise _unknown_corpus(name, root)


def _unknown_corpus(name: str, root: Path | str) -> RetrievalError:
    return RetrievalError(
        f"there is no corpus {name!r} under {str(corpora_folder(root))!r}.",
        code="UNKNOWN_CORPUS",
        known=[m.name for m in list_corpora(root)],
        hint=f"jade index PATH --corpus {name}",
    )


def _encoder_mismatch(name: str, manifest: CorpusManifest, encoder: Encoder) -> RetrievalError:
    return RetrievalError(
        f"the corpus {name!r} was made with the encoder {manifest.encoder!r}, not with {encoder.id!r}.",
        code="ENCODER_MISMATCH",
        known=[manifest.encoder_spec],
        hint=f"use that encoder, or index under another name: jade index PATH --corpus {name}-2",
    )
