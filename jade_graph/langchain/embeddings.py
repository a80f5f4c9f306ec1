"""The corpus encoder as LangChain `Embeddings`: vectors that are comparable with those of a corpus.

Invariant: one unit vector per text, in order; a question and a passage are encoded as the encoder means them to be.
"""

from __future__ import annotations

import asyncio
import threading

from langchain_core.embeddings import Embeddings

from jade_graph.retrieval.encoder import DEFAULT, Encoder, load_encoder


class JadeEmbeddings(Embeddings):
    """Embeddings of an `Encoder`.

    Args:
        encoder: its name ("minilm", "hash", "hf:FOLDER", see `load_encoder`), loaded when first used, or an encoder.

    Raises `UsageError` UNKNOWN_ENCODER and `RetrievalError` ENCODER_MISSING, BAD_ENCODER when made.
    """

    def __init__(self, encoder: Encoder | str = DEFAULT) -> None:
        self.encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"JadeEmbeddings({self.encoder.id!r})"

    def __reduce__(self) -> tuple[type[JadeEmbeddings], tuple[str]]:
        return JadeEmbeddings, (self.encoder.spec,)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """float32 unit vectors as lists, shape (len(texts), encoder.dim)."""
        with self._lock:  # the weights are loaded at the first call
            return [[float(x) for x in row] for row in self.encoder.encode(texts)]

    def embed_query(self, text: str) -> list[float]:
        with self._lock:
            return [float(x) for x in self.encoder.encode([text], query=True)[0]]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        return await asyncio.to_thread(self.embed_query, text)
