"""Vector search: exact over a matrix, or Chroma's HNSW where the matrix would be too large.

Invariant: Chroma never embeds anything for us. Every row is written with a vector of ours and a collection is only
ever opened with our embedding function, whose name says so; rows are named by content, so equal text is stored once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jade_graph.errors import RetrievalError, storage_error
from jade_graph.retrieval.bm25 import top
from jade_graph.retrieval.encoder import Encoder, Vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

EXACT_LIMIT = 20_000
"""Up to here all vectors are held in memory (30 MB at 384 dimensions) and cosine is exact, as in the reference
figures; beyond, HNSW answers (recall@100 of .9997 over 3100 passages with the settings below)."""

MAX_BATCH = 5_000  # Chroma refuses more than 5461 rows at once
_HNSW: Mapping[str, Any] = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": 200}


@contextmanager
def _chroma_failures() -> Iterator[None]:
    from chromadb.errors import ChromaError

    try:
        yield
    except (ChromaError, OSError, ValueError) as error:
        if (stored := storage_error(error)) is not None:
            raise stored from error
        raise _broken(f"the vectors cannot be read or written: {type(error).__name__}: {error}") from error


Hits = list[tuple[int, float]]


class VectorSearch(Protocol):
    def search(self, queries: Vectors, k: int) -> list[Hits]:
        """For each row of `queries` (unit length), at most `k` (position, cosine), best first."""
        ...

    def at(self, positions: Sequence[int]) -> Vectors:
        """The stored vectors of these positions, float32 of shape (len(positions), dim)."""
        ...


class ExactVectors:
    """Cosine against every row of a matrix of unit vectors, shape (passages, dim)."""

    def __init__(self, matrix: Vectors) -> None:
        self.matrix = matrix

    def search(self, queries: Vectors, k: int) -> list[Hits]:
        # One product per query, rounded: the last bits of a dot product depend on where in memory and in which batch it
        # is computed, and they must not decide the order of passages that are equally near.
        found = []
        for query in queries:
            scores = np.round(self.matrix @ query, 6)
            found.append([(i, float(scores[i])) for i in top(scores, k)])
        return found

    def at(self, positions: Sequence[int]) -> Vectors:
        rows: Vectors = self.matrix[list(positions)]
        return rows


class ChromaVectors:
    """Approximate search in a collection; `positions` maps a row's name to the passages with that content."""

    def __init__(self, store: ChromaStore, positions: Mapping[str, Sequence[int]]) -> None:
        self._store, self._positions = store, positions
        self._rows = {position: row for row, found in positions.items() for position in found}

    def at(self, positions: Sequence[int]) -> Vectors:
        return self._store.vectors([self._rows[position] for position in positions])

    def search(self, queries: Vectors, k: int) -> list[Hits]:
        found: list[Hits] = []
        for rows in self._store.nearest(queries, k):
            hits = [(i, score) for row, score in rows for i in self._positions.get(row, ())]
            found.append(hits[:k])
        return found


class ChromaStore:
    """The rows of one corpus in an embedded Chroma folder: one collection per encoder.

    Use `with chroma_store(...)`: the client is closed at the end. One writer at a time (see `lock`). Any failure of
    Chroma's is a `RetrievalError` CORPUS_BROKEN.
    """

    def __init__(self, client: ClientAPI, encoder_id: str, *, create: bool, copy: Path | None = None) -> None:
        self._client, self._create, self._copy = client, create, copy
        self._encoder_id = encoder_id
        self.collection_name = "passages-" + hashlib.sha256(encoder_id.encode()).hexdigest()[:12]
        self._opened: Collection | None = None

    @_chroma_failures()
    def rows(self) -> set[str]:
        """The names of all rows."""
        return set(self._collection.get(include=[])["ids"])

    @_chroma_failures()
    def upsert(self, rows: Sequence[str], vectors: Vectors, texts: Sequence[str], titles: Sequence[str]) -> None:
        for start in range(0, len(rows), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            self._collection.upsert(
                ids=list(rows[part]),
                embeddings=vectors[part],
                documents=list(texts[part]),
                metadatas=[{"title": title} for title in titles[part]],
            )

    @_chroma_failures()
    def delete(self, rows: Sequence[str]) -> None:
        for start in range(0, len(rows), MAX_BATCH):
            self._collection.delete(ids=list(rows[start : start + MAX_BATCH]))

    @_chroma_failures()
    def vectors(self, rows: Sequence[str]) -> Vectors:
        """The vectors of these rows, in their order, float32 of shape (len(rows), dim). Raises CORPUS_BROKEN."""
        wanted = list(dict.fromkeys(rows))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), MAX_BATCH):
            part = self._collection.get(ids=wanted[start : start + MAX_BATCH], include=["embeddings"])
            found.update(zip(part["ids"], part["embeddings"] if part["embeddings"] is not None else (), strict=True))
        missing = [row for row in wanted if row not in found]
        if missing:
            raise _broken(f"{len(missing)} of {len(wanted)} vectors are missing from the index")
        return np.asarray([found[row] for row in rows], dtype=np.float32)

    @_chroma_failures()
    def nearest(self, queries: Vectors, k: int) -> list[list[tuple[str, float]]]:
        """(row, cosine), best first, at most `k` a query, by HNSW."""
        size = min(k, self._collection.count())
        if size == 0 or not len(queries):
            return [[] for _ in queries]
        answer = self._collection.query(query_embeddings=queries, n_results=size, include=["distances"])
        return [
            [(row, round(1.0 - float(d), 6)) for row, d in zip(rows, distances, strict=True)]
            for rows, distances in zip(answer["ids"], answer["distances"] or [], strict=True)
        ]

    @_chroma_failures()
    def drop_other_collections(self) -> None:
        """Remove what another encoder left."""
        for collection in self._client.list_collections():
            if collection.name != self.collection_name:
                self._client.delete_collection(collection.name)

    def close(self) -> None:
        self._client.close()  # type: ignore[attr-defined]
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)

    @property
    def _collection(self) -> Collection:
        if self._opened is None:
            function = _embedding_function(self._encoder_id)
            if self._create:
                self._opened = self._client.get_or_create_collection(
                    self.collection_name,
                    embedding_function=function,
                    configuration={"hnsw": _HNSW},  # type: ignore[arg-type]
                )
            else:
                self._opened = self._client.get_collection(self.collection_name, embedding_function=function)
        return self._opened


def open_store(folder: Path, encoder_id: str, *, create: bool = True) -> ChromaStore:
    """The store in `folder`; close it after use.

    Args:
        create: make what is not there (a writer); without it nothing is written, and of a folder that cannot be
            written a copy is opened.

    Raises:
        RetrievalError: CORPUS_BROKEN.
        JadeError: DISK_FULL, NO_ACCESS.
    """
    import chromadb
    from chromadb.config import Settings

    copy: Path | None = None
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not (folder / "chroma.sqlite3").is_file():
        raise _broken(f"there are no vectors in {str(folder)!r}")
    elif not _writable(folder):  # Chroma writes in what it opens, be it to read
        copy = _copied(folder)
    try:
        with _chroma_failures():
            client = chromadb.PersistentClient(str(copy or folder), settings=Settings(anonymized_telemetry=False))
    except BaseException:
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)
        raise
    return ChromaStore(client, encoder_id, create=create, copy=copy)


def _writable(folder: Path) -> bool:
    return all(os.access(path, os.W_OK) for path in (folder, folder / "chroma.sqlite3"))


def _copied(folder: Path) -> Path:
    """The folder's files in a place of their own, for as long as they are open."""
    copy = Path(tempfile.mkdtemp(prefix="jade-corpus-"))
    try:
        shutil.copytree(folder, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)
        copy.chmod(0o700)
        for path in copy.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(copy, ignore_errors=True)
        stored = storage_error(error, str(copy))
        raise stored or _broken(f"the vectors in {str(folder)!r} cannot be copied: {error}") from error
    return copy


def _broken(what: str) -> RetrievalError:
    return RetrievalError(
        f"{what}.",
        code="CORPUS_BROKEN",
        hint="index it again: jade index PATH --corpus NAME; where that fails, too, rename the corpus's folder first",
    )


@contextmanager
def chroma_store(folder: Path, encoder_id: str) -> Iterator[ChromaStore]:
    store = open_store(folder, encoder_id)
    try:
        yield store
    finally:
        store.close()


def encode_checked(encoder: Encoder, texts: Sequence[str], *, query: bool = False) -> Vectors:
    """`encoder.encode`, its result held to the protocol: a third party's may break it. Raises BAD_ENCODER."""
    vectors = encoder.encode(texts, query=query)
    if vectors.shape != (len(texts), encoder.dim) or not np.isfinite(vectors).all():
        raise RetrievalError(
            f"the encoder {encoder.id!r} gave {vectors.shape} for {len(texts)} texts of dimension {encoder.dim}, "
            "or values that are not finite.",
            code="BAD_ENCODER",
        )
    return vectors


def _embedding_function(encoder_id: str) -> Any:
    import chromadb

    class JadeEmbedding(chromadb.EmbeddingFunction[Any]):
        """Stands where Chroma would put its own, downloading, model: vectors always come with the call."""

        def __init__(self) -> None:
            pass

        def __call__(self, input: Any) -> Any:  # noqa: ARG002 - Chroma's own name for it
            raise RetrievalError("this collection is searched by vector only.", code="CORPUS_VECTORS_ONLY")

        @staticmethod
        def name() -> str:
            return "jade"

        def get_config(self) -> dict[str, Any]:
            return {"encoder": encoder_id}

        @staticmethod
        def build_from_config(config: dict[str, Any]) -> Any:
            return _embedding_function(config["encoder"])

        def default_space(self) -> Any:
            return "cosine"

    return JadeEmbedding()
