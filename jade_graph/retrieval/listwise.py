"""E2Rank (arXiv 2510.22733): a question and its first passages as one prompt, whose vector ranks all candidates.

    e(q) finds the candidates; q^ = the prompt of the query and the first 20 of them; score(d) = e(q^) . e(d)

Invariant: one prompt in training and in use (`prompt`, `PROMPT_VERSION`). Passages keep the vectors that they have: a
prompt is the one text that is embedded, and prompts of several questions are embedded in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jade_graph.retrieval.pooling import SHOWN
from jade_graph.retrieval.vectors import Encoder, Prompting, Vectors, normalise
from jade_graph.retrieval.words import whole

PROMPT_VERSION = 1
"""Part of the corpus id of whatever reranks: other words are another ranking."""

INSTRUCTION = "Given a question and documents found for it, find the documents that answer the question"
_LEAST = 4  # words of a passage that is shown at all


def named(rerank: int, encoder: Encoder) -> str:
    """What a corpus id says of ranking again; "" where that is not done."""
    if not rerank:
        return ""
    tokens = encoder.prompt_tokens if isinstance(encoder, Prompting) else 0
    return f"rerank={rerank} {encoder.id} prompt={PROMPT_VERSION}:{shown_by(encoder)}:{tokens}"


def prompt(query: str, documents: Sequence[str], encoder: Encoder | None = None) -> str:
    """The listwise prompt.

    Args:
        documents: as they are embedded (title, line break, text), best first; those beyond what the encoder shows are
            left out, and all are cut to like lengths where the whole would be longer than the encoder reads.
    """
    shown = documents[: shown_by(encoder)]
    texts = [" ".join(whole(text).split()) for text in shown]
    asked = " ".join(whole(query).split())
    if isinstance(encoder, Prompting):
        texts = _fitted(asked, texts, encoder)
    return _written(asked, texts)


def shown_by(encoder: Encoder | None) -> int:
    """How many passages a prompt of this encoder shows."""
    return encoder.prompt_documents if isinstance(encoder, Prompting) else SHOWN


def encode_prompts(encoder: Encoder, prompts: Sequence[str]) -> Vectors:
    """Unit vectors of prompts, shape (len(prompts), dim): one call of the encoder.

    Raises `RetrievalError` BAD_ENCODER for what breaks the encoder's protocol.
    """
    from jade_graph.errors import RetrievalError

    if isinstance(encoder, Prompting):
        vectors = encoder.encode_prompts(prompts)
    else:
        vectors = encoder.encode(prompts, query=True)
    if vectors.shape != (len(prompts), encoder.dim) or not np.isfinite(vectors).all():
        raise RetrievalError(
            f"the encoder {encoder.id!r} gave {vectors.shape} for {len(prompts)} prompts of dimension {encoder.dim}, "
            "or values that are not finite.",
            code="BAD_ENCODER",
        )
    return normalise(vectors)


def order(prompt_vector: Vectors, vectors: Vectors) -> list[tuple[int, float]]:
    """(row, cosine) of every row of `vectors` (unit length), best first; equal ones keep their order."""
    scores = np.round(vectors @ prompt_vector, 6)
    return [(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")]


def _written(query: str, documents: Sequence[str]) -> str:
    listed = "\n".join(f"[{number}] {text}" for number, text in enumerate(documents, start=1))
    return f"{INSTRUCTION}:\nDocuments:\n{listed}\nQuery: {query}"


def _fitted(query: str, documents: Sequence[str], encoder: Prompting) -> list[str]:
    """The passages cut, the longest first, until the whole prompt fits; whole words, so that nothing is cut behind."""
    around, *counts = encoder.count_tokens([_written(query, [""] * len(documents)), *documents])
    room = encoder.prompt_tokens - around - 4  # what the encoder itself puts around a text
    if sum(counts) <= room or not documents:
        return list(documents)
    level = _level(counts, max(room, 0))
    out = []
    for text, count in zip(documents, counts, strict=True):
        words = text.split(" ")
        # Tokens spread evenly over words, and a little less than that: what is cut twice is cut of the next passage.
        keep = len(words) if count <= level else max(_LEAST, int(len(words) * level / count))
        out.append(" ".join(words[:keep]))
    taken = sum(encoder.count_tokens(out))
    while taken > room and any(" " in text for text in out):
        out = [" ".join(text.split(" ")[: max(1, int(text.count(" ") * 0.9))]) for text in out]
        taken = sum(encoder.count_tokens(out))
    return out


def _level(counts: Sequence[int], room: int) -> float:
    """The most tokens of one passage with which all fit: water poured into the room."""
    left, rest = float(room), sorted(counts)
    for i, count in enumerate(rest):
        share = left / (len(rest) - i)
        if count > share:
            return share
        left -= count
    return float(max(rest, default=0))
