"""Corpora: indexes on disk, built once and opened many times.

Invariant: a build can be cut off at any point and started again; it then does only what is missing. Readers see the
last whole corpus, never half of a newer one, and never one that was made with another encoder than theirs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.errors import RetrievalError, no_room, storage_error
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.chunking import Chunking, Reading, chunk_text, titled
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
from jade_graph.retrieval.encoder import DEFAULT, Encoder, TokenCounting, load_encoder
from jade_graph.retrieval.identity import Mode, check_mode, check_rerank, content_id, corpus_id, distinct, row_id, texts
from jade_graph.retrieval.listwise import named
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.retrieval.lock import write_lock
from jade_graph.retrieval.manifest import (
    CorpusManifest,
    corpus_folder,
    list_corpora,
    read_manifest,
    require_manifest,
    unknown_corpus,
)
from jade_graph.retrieval.passages import PASSAGES, read_words, record
from jade_graph.retrieval.reading import Document, Note, Skipped
from jade_graph.retrieval.sealing import broken, require_sealed, sealed, vectors_id
from jade_graph.retrieval.words import least_version, whole
from jade_graph.types import Passage

__all__ = [
    "CorpusManifest",
    "Progress",
    "build_corpus",
    "is_built",
    "list_corpora",
    "open_corpus",
    "passages_of",
    "remove_corpus",
]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); the phases are "embed", "words" and "save"."""

_SLICE = 256  # passages embedded between two writes: what a crash can lose


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
    notes: Sequence[Note] = (),
    progress: Progress | None = None,
    wait: float = 0.0,
) -> CorpusManifest:
    """Make the corpus `name` hold exactly these items. What is already embedded is not embedded again.

    Args:
        items: passages are indexed as they are; documents are cut by `chunking`.
        root: the data folder; the corpus lives in ROOT/corpora/NAME.
        encoder: an encoder or its spec string.
        replace_encoder: allow another encoder than the corpus had: everything is embedded anew.
        source: where the items came from, for the manifest; `skipped` what was left out there, and `notes` what was
            guessed.
        wait: seconds to wait while another process writes this corpus.

    Raises:
        UsageError: BAD_CORPUS_NAME, UNKNOWN_ENCODER.
        DataError: PASSAGE_ID.
        RetrievalError: CORPUS_EMPTY, CORPUS_LOCKED, ENCODER_MISMATCH, CORPUS_BROKEN.
        JadeError: DISK_FULL, NO_ACCESS.
    """
    folder = corpus_folder(name, root)
    used = encoder_named(encoder, root)
    cut = chunking or Chunking()
    passages, documents, chunked = _collect(items, cut, reading_of(used))
    kept, dropped = distinct(passages)
    with _storage(folder), write_lock(folder, wait):
        old = read_manifest(folder)
        if old is not None and old.encoder != used.id and not replace_encoder:
            raise _encoder_mismatch(name, old, used)
        with chroma_store(folder / "chroma", used.id) as store:
            _drop_what_is_not_sealed(folder, old, store)
            rows, embedded = embed(kept, store, used, progress)
            generation, version = _write_words(folder / "bm25", kept, progress, old)
            content = content_id(kept)
            settings = cut.as_dict() if chunked else None
            manifest = CorpusManifest(
                name=name,
                corpus_id=corpus_id(content, encoder=used.id, chunking=settings, words=version),
                content_id=content,
                generation=generation,
                words=version,
                encoder=used.id,
                encoder_spec=used.spec,
                dim=used.dim,
                dtype=str(getattr(used, "dtype", "float32")),
                passages=len(kept),
                documents=documents,
                chunking=settings,
                source=source,
                skipped=tuple({"source": s.source, "reason": s.reason} for s in skipped),
                notes=tuple({"source": n.source, "note": n.text} for n in notes),
                dropped=dropped,
                embedded=embedded,
                reused=len(rows) - embedded,
                files=sealed(folder / "bm25" / generation),
                vectors=vectors_of(store, kept),
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


def is_built(passages: Iterable[Passage], name: str, root: Path | str, encoder: Encoder | str = DEFAULT) -> bool:
    """Whether building this corpus would change nothing, as far as its manifest tells. Reads, and takes no lock."""
    manifest = read_manifest(corpus_folder(name, root))
    if manifest is None or manifest.chunking is not None:
        return False
    used = encoder_named(encoder, root)
    return manifest.encoder == used.id and manifest.generation == _generation(distinct(passages)[0])[0]


def open_corpus(
    name: str, root: Path | str, encoder: Encoder | str | None = None, *, mode: str = "hybrid", rerank: int = 0
) -> LocalRetriever:
    """Open a corpus for searching.

    Args:
        encoder: None takes the one that the corpus was built with; another one is an error.
        mode: "hybrid" (BM25 and vectors fused by RRF), "dense" or "bm25" (which loads no encoder and no vectors, unless
            something is ranked again).
        rerank: so many of the first passages are ranked again by a listwise prompt (`listwise`); 0: none.

    Raises:
        UsageError: BAD_CORPUS_NAME, BAD_RETRIEVAL_MODE, BAD_RERANK, UNKNOWN_ENCODER.
        RetrievalError: UNKNOWN_CORPUS, CORPUS_UNFINISHED, CORPUS_BROKEN, ENCODER_MISMATCH, ENCODER_MISSING.
    """
    checked = check_mode(mode)
    folder = corpus_folder(name, root)
    manifest = require_manifest(name, root)
    used: Encoder | None = None
    if checked != "bm25" or encoder is not None or check_rerank(rerank):
        used = encoder_named(encoder or manifest.encoder_spec, root)
        if used.id != manifest.encoder:
            raise _encoder_mismatch(name, manifest, used)
    while True:
        try:
            return retriever_of(folder, manifest, used, checked, rerank)
        except RetrievalError:
            # A writer may have put a newer corpus in the place of the one we were reading.
            newer = read_manifest(folder)
            if newer is None or newer.generation == manifest.generation or newer.encoder != manifest.encoder:
                raise
            manifest = newer


def retriever_of(
    folder: Path, manifest: CorpusManifest, encoder: Encoder | None, mode: Mode, rerank: int = 0
) -> LocalRetriever:
    """A retriever over what a manifest says: whoever calls has looked that the encoder is the manifest's."""
    embedding = encoder if mode != "bm25" or rerank else None
    passages, words = read_words(folder, manifest, words=mode != "dense")
    vectors, close = (None, None) if embedding is None else _open_vectors(folder, manifest, passages)
    return LocalRetriever(
        passages,
        corpus_id=corpus_id(
            manifest.content_id,
            encoder=manifest.encoder,
            mode=mode,
            chunking=manifest.chunking,
            words=manifest.words,
            rerank=named(rerank, embedding) if embedding is not None else "",
        ),
        mode=mode,
        bm25=words,
        vectors=vectors,
        encoder=embedding,
        name=manifest.name,
        on_close=close,
        rerank=rerank,
    )


def encoder_named(encoder: Encoder | str, root: Path | str) -> Encoder:
    """An encoder that is given, or by its name; a registered one is looked up in the corpus's own data folder."""
    if not isinstance(encoder, str):
        return encoder
    options: dict[str, Any] = {"data_dir": root} if encoder.startswith("models:") else {}
    return load_encoder(encoder, **options)


def remove_corpus(name: str, root: Path | str) -> None:
    """Delete a corpus and its folder. Raises UNKNOWN_CORPUS, CORPUS_LOCKED."""
    folder = corpus_folder(name, root)
    if not folder.is_dir():
        raise unknown_corpus(name, root)
    with write_lock(folder):
        (folder / "manifest.json").unlink(missing_ok=True)
        for part in ("chroma", "bm25"):
            shutil.rmtree(folder / part, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def reading_of(encoder: Encoder) -> Reading | None:
    """How much of a passage the encoder reads; None where it reads all, or does not say."""
    if isinstance(encoder, TokenCounting):
        return Reading(encoder.readable_tokens, encoder.count_tokens)
    return None


def passages_of(document: Document, chunking: Chunking | None = None, reading: Reading | None = None) -> list[Passage]:
    """A document cut into passages. A document of one chunk keeps its id; of more, `#1`, `#2` .. are added."""
    chunks = chunk_text(document.text, chunking, markdown=document.markdown, title=document.title, reading=reading)
    if not chunks and document.title:
        return [Passage(document.id, "", document.title, metadata={**document.metadata, "source": document.source})]
    passages = []
    for number, chunk in enumerate(chunks, start=1):
        key = document.id if len(chunks) == 1 else f"{document.id}#{number}"
        metadata: dict[str, Any] = {**document.metadata, "source": document.source}
        passages.append(Passage(key, chunk.text, titled(document.title, chunk.headings), metadata=metadata))
    return passages


def _collect(
    items: Iterable[Passage | Document], chunking: Chunking, reading: Reading | None
) -> tuple[list[Passage], int, bool]:
    """Passages, number of items, and whether any was cut."""
    passages: list[Passage] = []
    taken: dict[str, tuple[str, str]] = {}
    count, chunked = 0, False
    for item in items:
        count += 1
        if isinstance(item, Passage):
            passages.append(item)
            continue
        chunked = True
        for passage in passages_of(item, chunking, reading):
            key, content = passage.id, (passage.title, passage.text)
            while taken.setdefault(key, content) != content:  # "a#1" may be a line's id and a file's first passage
                key += "~"
            passages.append(replace(passage, id=key) if key != passage.id else passage)
    return passages, count, chunked


def embed(
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
        store.upsert(rows, vectors, [whole(p.text) for p in batch], [whole(p.title) for p in batch])
        if progress is not None:
            progress("embed", start + len(rows), len(missing))
    return set(by_row), len(missing)


def _drop_what_is_not_sealed(folder: Path, old: CorpusManifest | None, store: ChromaStore) -> None:
    """Vectors that are not those of the last build are embedded anew, all of them."""
    if old is None or not old.vectors:
        return
    try:
        if vectors_of(store, read_words(folder, old, words=False)[0]) == old.vectors:
            return
    except RetrievalError:  # vectors are missing, or the passages are: which are whole cannot be told
        pass
    store.delete(sorted(store.rows()))


def vectors_of(store: ChromaStore, passages: Sequence[Passage]) -> str:
    if len(passages) > EXACT_LIMIT:
        return ""
    rows = [row_id(p) for p in passages]
    return vectors_id(rows, store.vectors(rows))


def _write_words(
    folder: Path, passages: Sequence[Passage], progress: Progress | None, old: CorpusManifest | None
) -> tuple[str, int]:
    """Passages and BM25 in a folder named by what is in it. Returns that name, and the version of the words."""
    generation, version, lines = _generation(passages)
    final = folder / generation
    if not _is_whole(final, old):
        draft, aside = folder / f".{generation}.tmp", folder / f".{generation}.old"
        for left in (draft, aside):
            shutil.rmtree(left, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / PASSAGES).write_text(lines, encoding="utf-8", errors="surrogatepass", newline="\n")
        Bm25.build(texts(passages)).save(draft)
        if final.exists():
            final.replace(aside)
        draft.replace(final)
    if progress is not None:
        progress("words", len(passages), len(passages))
    return generation, version


def _is_whole(final: Path, old: CorpusManifest | None) -> bool:
    """Whether the folder is what a former build sealed. What a build left that was cut off is made again."""
    if old is None or old.generation != final.name or not final.is_dir():
        return False
    try:
        require_sealed(final, old.files, old.name)
    except RetrievalError:
        return False
    return True


def _generation(passages: Sequence[Passage]) -> tuple[str, int, str]:
    """The name of what is in these passages, the version of their words, and the lines that are stored."""
    lines = "".join(json.dumps(record(p), ensure_ascii=False, default=str) + "\n" for p in passages)
    version = least_version(texts(passages))
    named = lines if version == 1 else f"words={version}\n{lines}"
    return hashlib.sha256(named.encode("utf-8", errors="surrogatepass")).hexdigest()[:16], version, lines


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """A full disk or a folder without access by its own name."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, str(folder)) or error from error
    except RetrievalError as error:  # Chroma does not say what its database met
        raise (no_room(error, folder) if error.error_code == "CORPUS_BROKEN" else None) or error from error


def _open_vectors(
    folder: Path, manifest: CorpusManifest, passages: Sequence[Passage]
) -> tuple[VectorSearch, Callable[[], None] | None]:
    rows = [row_id(p) for p in passages]
    store = open_store(folder / "chroma", manifest.encoder, create=False)
    if len(passages) <= EXACT_LIMIT:
        try:
            vectors = store.vectors(rows)
            if manifest.vectors and vectors_id(rows, vectors) != manifest.vectors:
                raise broken(manifest.name, "its vectors are others")
            return ExactVectors(vectors), None
        finally:
            store.close()
    positions: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault(row, []).append(position)
    return ChromaVectors(store, positions), store.close


def _encoder_mismatch(name: str, manifest: CorpusManifest, encoder: Encoder) -> RetrievalError:
    return RetrievalError(
        f"the corpus {name!r} was made with the encoder {manifest.encoder!r}, not with {encoder.id!r}.",
        code="ENCODER_MISMATCH",
        known=[manifest.encoder_spec],
        hint=f"use that encoder, or index under another name: jade index PATH --corpus {name}-2",
    )
