"""Word search: BM25 (bm25s, Lucene's variant) over the words that `words` makes.

Invariant: a passage that shares no word with the query is never returned, and equal scores keep the passages' order.
What is saved are arrays and JSON, never pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jade_graph.errors import RetrievalError, storage_error
from jade_graph.retrieval.words import least_version, query_words, tokenize

_PARAMS = "bm25.json"


@dataclass(frozen=True, slots=True)
class Bm25Params:
    """k1 and b as in Robertson and Zaragoza (2009), idf as in Lucene; English stop words and Snowball stems."""

    k1: float = 1.5
    b: float = 0.75
    language: str = "english"


class Bm25:
    """A BM25 index over passages, known by their position.

    Query time grows with the passages that share a word with the query: about .2 ms over 6000 passages.
    """

    def __init__(self, index: Any, size: int, params: Bm25Params, words: int = 1) -> None:
        self._index, self._size, self.params = index, size, params
        self.words = words
        """The version of `jade_graph.retrieval.words` that made its words."""

    def __len__(self) -> int:
        return self._size

    @classmethod
    def build(cls, texts: Sequence[str], params: Bm25Params | None = None) -> Bm25:
        import bm25s

        params = params or Bm25Params()
        version = least_version(texts, params.language)
        tokens = tokenize(texts, params.language, version=version)
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in row] for row in tokens]
        if not vocabulary:  # no passage has a word in it: nothing can ever match
            return cls(None, len(texts), params, version)
        index = bm25s.BM25(k1=params.k1, b=params.b, method="lucene")
        index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index, len(texts), params, version)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """One score per passage, 0 where no word is shared. Shape (len(self),)."""
        tokens = query_words(query, self.params.language, version=self.words)
        ids = self._index.get_tokens_ids(tokens) if self._index is not None else []
        if not ids:
            return np.zeros(self._size, dtype=np.float32)
        scores: npt.NDArray[np.float32] = self._index.get_scores_from_ids(ids)
        return scores

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """(position, score) of at most `k` passages, best first; only those that share a word with the query."""
        scores = self.scores(query)
        return [(i, float(scores[i])) for i in top(scores, k) if scores[i] > 0]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._index is not None:
            self._index.save(folder, show_progress=False)
        record = {"size": self._size, "empty": self._index is None, **asdict(self.params)}
        if self.words != 1:
            record["words"] = self.words
        (folder / _PARAMS).write_text(json.dumps(record), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Bm25:
        """Raises `RetrievalError` CORPUS_BROKEN when the folder holds no whole index."""
        import bm25s

        try:
            record = json.loads((folder / _PARAMS).read_text(encoding="utf-8"))
            size, empty, version = record.pop("size"), record.pop("empty"), record.pop("words", 1)
            index = None if empty else bm25s.BM25.load(folder, show_progress=False, allow_pickle=False)
            return cls(index, size, Bm25Params(**record), version)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if (stored := storage_error(error, str(folder))) is not None:
                raise stored from error
            raise RetrievalError(
                f"the BM25 index in {str(folder)!r} cannot be read: {error}",
                code="CORPUS_BROKEN",
                hint="index the corpus again: jade index PATH --corpus NAME",
            ) from error


def top(scores: npt.NDArray[np.float32], k: int) -> list[int]:
    """Positions of the `k` highest scores, highest first; equal scores in order of position."""
    k = min(k, len(scores))
    if k <= 0:
        return []
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    order = np.argsort(-scores[candidates], kind="stable")[:k]
    return [int(i) for i in candidates[order]]
