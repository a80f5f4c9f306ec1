"""Names of content: rows, corpora and retrievers.

Invariant: equal names rank alike. A corpus id covers every passage's id, title and text, the encoder, how texts were
cut and how they are searched, and nothing else: not the folder, the order, the time or the metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from jade_graph.errors import DataError, RetrievalError, UsageError, unknown
from jade_graph.retrieval.words import whole
from jade_graph.types import Passage

Mode = Literal["hybrid", "dense", "bm25"]
MODES: tuple[Mode, ...] = get_args(Mode)


def row_id(passage: Passage) -> str:
    """Names what is embedded (title and text), so that equal content is embedded once. 32 hexadecimal digits."""
    return _digest(passage.title, passage.text)[:32]


def content_id(passages: Iterable[Passage]) -> str:
    """Names a set of passages, in any order. 64 hexadecimal digits."""
    return _digest(*sorted(_digest(p.id, p.title, p.text) for p in passages))


def corpus_id(
    content: str,
    *,
    encoder: str,
    mode: Mode = "hybrid",
    chunking: Mapping[str, Any] | None = None,
    words: int = 1,
    rerank: str = "",
) -> str:
    """Names what a retriever can return and in which order. 16 hexadecimal digits.

    Args:
        content: from `content_id`.
        encoder: the encoder's id; word search ("bm25") does not depend on it.
        chunking: how documents were cut; None for passages that came as they are.
        words: the version of the words that are searched for (`Bm25.words`); vectors ("dense") do not depend on it.
        rerank: how the first passages are ranked again, and by which encoder; "": they are not.
    """
    cut = ",".join(f"{key}={value}" for key, value in sorted((chunking or {}).items()))
    newer = (f"words={words}",) if words != 1 and mode != "dense" else ()
    return _digest(content, "" if mode == "bm25" else encoder, mode, cut, *newer, *((rerank,) if rerank else ()))[:16]


def check_mode(mode: str) -> Mode:
    """Raises `UsageError` BAD_RETRIEVAL_MODE."""
    for known in MODES:
        if mode == known:
            return known
    raise unknown("retrieval mode", mode, MODES, code="BAD_RETRIEVAL_MODE")


def check_rerank(rerank: int) -> int:
    """Raises `UsageError` BAD_RERANK."""
    if rerank < 0:
        raise UsageError(
            f"rerank is {rerank}: the number of first passages that are ranked again, 0 for none.",
            code="BAD_RERANK",
            hint="rerank = 100",
        )
    return rerank


def distinct(passages: Iterable[Passage]) -> tuple[list[Passage], int]:
    """The passages without repetitions and without empty ones, and how many were left out.

    Raises:
        DataError: PASSAGE_ID when an id is empty, or stands for two different texts.
        RetrievalError: CORPUS_EMPTY when nothing is left.
    """
    kept: dict[str, Passage] = {}
    dropped = 0
    for passage in passages:
        if not passage.id:
            raise DataError(f"a passage titled {passage.title!r} has no id.", code="PASSAGE_ID")
        known = kept.get(passage.id)
        if known is not None and (known.title, known.text) != (passage.title, passage.text):
            raise DataError(
                f"the passage id {passage.id!r} stands for two different texts.",
                code="PASSAGE_ID",
                hint="give every passage an id of its own",
            )
        if known is not None or not (passage.text.strip() or passage.title.strip()):
            dropped += 1
        else:
            kept[passage.id] = passage
    if not kept:
        raise RetrievalError("there is no passage with a text to index.", code="CORPUS_EMPTY")
    return list(kept.values()), dropped


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))  # so that ("ab", "c") and ("a", "bc") differ
        digest.update(data)
    return digest.hexdigest()


def texts(passages: Sequence[Passage]) -> list[str]:
    """What is embedded and indexed: title, line break, text."""
    return [whole(str(passage)) for passage in passages]
