"""Seals of a corpus: what was checked is what is searched.

Invariant: every file that a reader of a corpus opens is a regular file in the corpus's folder, listed in its manifest
with its hash, and compared before anything is read of it; vectors are compared as they are read. Chroma's own files
change when they are opened, so of them the vectors are sealed and not the bytes. Older corpora have no seals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jade_graph.errors import RetrievalError, storage_error
from jade_graph.retrieval.encoder import Vectors

_READ = (".npy", ".json", ".jsonl", ".mmindex")


def sealed(folder: Path) -> dict[str, str]:
    """The hash of every file in a folder, by name. Raises `OSError`."""
    return {path.name: _hash(path) for path in sorted(folder.iterdir()) if path.suffix in _READ}


def require_sealed(folder: Path, seals: Mapping[str, str], name: str, only: Iterable[str] | None = None) -> None:
    """Compare the files of a folder with their seals, before they are opened.

    Args:
        name: of the corpus, for messages. only: compare these alone.

    Raises:
        RetrievalError: CORPUS_BROKEN. JadeError: NO_ACCESS.
    """
    if not seals:
        return
    try:
        wrong = _first_wrong(folder, seals, list(seals) if only is None else list(only), others=only is None)
    except OSError as error:
        raise storage_error(error, str(folder)) or broken(name, f"{folder.name}: {error}") from error
    if wrong is not None:
        raise broken(name, wrong)


def _first_wrong(folder: Path, seals: Mapping[str, str], names: Sequence[str], *, others: bool) -> str | None:
    root = folder.resolve()
    for file in names:
        path = folder / file
        if not path.is_file() or path.resolve().parent != root:
            return f"{file!r} is missing, no regular file, or leads out of the corpus's folder"
        if _hash(path) != seals.get(file):
            return f"{file!r} is not the file that was indexed"
    for path in sorted(folder.iterdir()) if others else ():
        if path.suffix in _READ and path.name not in seals:
            return f"{path.name!r} does not belong to it"
    return None


def vectors_id(rows: Sequence[str], vectors: Vectors) -> str:
    """Names the vectors of these rows, in whatever order they come. 64 hexadecimal digits."""
    digest = hashlib.sha256()
    seen: set[str] = set()
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        if rows[i] not in seen:
            seen.add(rows[i])
            digest.update(rows[i].encode() + b"\0" + vectors[i].astype("<f4").tobytes())
    return digest.hexdigest()


def broken(name: str, what: str) -> RetrievalError:
    return RetrievalError(
        f"the corpus {name!r} is not what was indexed: {what}.",
        code="CORPUS_BROKEN",
        hint=f"index it again, which replaces what is wrong: jade index PATH --corpus {name}",
    )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = ["broken", "require_sealed", "sealed", "vectors_id"]
