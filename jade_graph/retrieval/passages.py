"""The passages of a corpus as they stand on disk, one JSON record a line, with the words beside them.

Invariant: what is read was sealed by the manifest (older corpora have no seals), and comes back as it was written, lone
surrogates too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jade_graph.errors import RetrievalError, storage_error
from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.manifest import CorpusManifest
from jade_graph.retrieval.sealing import require_sealed
from jade_graph.types import Passage

PASSAGES = "passages.jsonl"


def record(passage: Passage) -> dict[str, Any]:
    record: dict[str, Any] = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {**record, "metadata": dict(passage.metadata)} if passage.metadata else record


def read_words(folder: Path, manifest: CorpusManifest, *, words: bool) -> tuple[list[Passage], Bm25 | None]:
    where = folder / "bm25" / manifest.generation
    require_sealed(where, manifest.files, manifest.name, None if words else [PASSAGES])
    try:
        with (where / PASSAGES).open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            passages = [Passage(**json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError) as error:
        if (stored := storage_error(error, str(where))) is not None:
            raise stored from error
        raise RetrievalError(
            f"the passages of the corpus {manifest.name!r} cannot be read: {error}",
            code="CORPUS_BROKEN",
            hint=f"jade index PATH --corpus {manifest.name}",
        ) from error
    return passages, Bm25.load(where) if words else None


__all__ = ["PASSAGES", "read_words", "record"]
