"""A corpus under another encoder: embedded beside the old one, opened to be judged, swapped whole.

Invariant: until the swap everybody reads the old vectors, and after it the new ones; the manifest is what decides, and
it is replaced in one step. Cut off at any point, what is embedded is not embedded again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.corpus import Progress, embed, retriever_of, vectors_of
from jade_graph.retrieval.dense import chroma_store
from jade_graph.retrieval.identity import check_mode, corpus_id
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.retrieval.lock import write_lock
from jade_graph.retrieval.manifest import CorpusManifest, corpus_folder, read_manifest, require_manifest
from jade_graph.retrieval.passages import read_words
from jade_graph.retrieval.vectors import Encoder


def embed_beside(
    name: str, root: Path | str, encoder: Encoder, *, progress: Progress | None = None, wait: float = 0.0
) -> CorpusManifest:
    """Embed a corpus's passages with another encoder, and change nothing of what is read.

    Returns:
        The manifest that the corpus would have under this encoder.

    Raises:
        UsageError: BAD_CORPUS_NAME. RetrievalError: UNKNOWN_CORPUS, CORPUS_LOCKED, CORPUS_BROKEN, BAD_ENCODER.
    """
    folder = corpus_folder(name, root)
    require_manifest(name, root)
    with write_lock(folder, wait):
        made, _ = _embedded(name, root, folder, encoder, progress)
    return made


def open_beside(
    name: str, root: Path | str, encoder: Encoder, *, mode: str = "hybrid", rerank: int = 0
) -> LocalRetriever:
    """The corpus as it would be searched under this encoder, for whoever judges it.

    Raises:
        RetrievalError: as `open_corpus`; ENCODER_MISMATCH where it was not embedded with it yet, or not all of it.
    """
    folder = corpus_folder(name, root)
    manifest = _under(require_manifest(name, root), encoder)
    try:
        return retriever_of(folder, manifest, encoder, check_mode(mode), rerank)
    except RetrievalError as error:
        if error.error_code != "CORPUS_BROKEN":
            raise
        raise RetrievalError(
            f"the corpus {name!r} is not embedded with {encoder.id!r}, or not all of it.",
            code="ENCODER_MISMATCH",
            hint=f"jade encoders reembed {name} --encoder {encoder.spec} --beside",
        ) from error


def swap_encoder(
    name: str, root: Path | str, encoder: Encoder, *, progress: Progress | None = None, wait: float = 0.0
) -> CorpusManifest:
    """Let a corpus be searched with another encoder from now on: what is missing is embedded, then it is swapped.

    Retrievers that are open keep what they have in memory; larger corpora are to be opened again. Raises as
    `embed_beside`.
    """
    folder = corpus_folder(name, root)
    require_manifest(name, root)
    with write_lock(folder, wait):
        made, rows = _embedded(name, root, folder, encoder, progress)
        made.write(folder)
        with chroma_store(folder / "chroma", encoder.id) as store:
            store.delete(sorted(store.rows() - rows))
            store.drop_other_collections()
    return made


def _embedded(
    name: str, root: Path | str, folder: Path, encoder: Encoder, progress: Progress | None
) -> tuple[CorpusManifest, set[str]]:
    """Under the lock: the manifest is read here, so that no newer corpus is overwritten by an older one."""
    manifest = read_manifest(folder) or require_manifest(name, root)
    passages, _ = read_words(folder, manifest, words=False)
    with chroma_store(folder / "chroma", encoder.id) as store:
        rows, embedded = embed(passages, store, encoder, progress)
        seal = vectors_of(store, passages)
    made = replace(_under(manifest, encoder), embedded=embedded, reused=len(rows) - embedded, removed=0, vectors=seal)
    return made, rows


def _under(manifest: CorpusManifest, encoder: Encoder) -> CorpusManifest:
    return replace(
        manifest,
        corpus_id=corpus_id(manifest.content_id, encoder=encoder.id, chunking=manifest.chunking, words=manifest.words),
        encoder=encoder.id,
        encoder_spec=encoder.spec,
        dim=encoder.dim,
        dtype=str(getattr(encoder, "dtype", "float32")),
        vectors="",  # of the other encoder's, nothing is sealed before they are swapped
    )
