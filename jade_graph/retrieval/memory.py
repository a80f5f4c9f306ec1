"""A retriever over passages held in memory, without an index on disk.

Invariant: it ranks exactly as a corpus built on disk from the same passages with the same encoder and mode does, and
has the same corpus id.
"""

from __future__ import annotations

from collections.abc import Iterable

from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.dense import ExactVectors, encode_checked
from jade_graph.retrieval.encoder import DEFAULT, Encoder, load_encoder
from jade_graph.retrieval.identity import check_mode, check_rerank, content_id, corpus_id, distinct, texts
from jade_graph.retrieval.listwise import named
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.types import Passage


class MemoryRetriever(LocalRetriever):
    """For tests, generated worlds and evaluations. Building embeds every passage unless the mode is "bm25".

    Args:
        passages: ids must be unique; repetitions and empty passages are left out.
        mode: "bm25" (the default: needs no model), "dense" or "hybrid".
        encoder: an encoder or its spec string; "bm25" uses it only to rank again.
        rerank: so many of the first passages are ranked again by a listwise prompt (`listwise`); 0: none.

    Raises:
        DataError: PASSAGE_ID.
        RetrievalError: CORPUS_EMPTY, or what loading the encoder raises.
        UsageError: BAD_RETRIEVAL_MODE, BAD_RERANK, UNKNOWN_ENCODER.
    """

    def __init__(
        self,
        passages: Iterable[Passage],
        mode: str = "bm25",
        encoder: Encoder | str = DEFAULT,
        *,
        name: str = "memory",
        rerank: int = 0,
    ) -> None:
        checked = check_mode(mode)
        kept, _ = distinct(passages)
        used: Encoder | None = None
        if checked != "bm25" or check_rerank(rerank):
            used = load_encoder(encoder) if isinstance(encoder, str) else encoder
        bm25 = Bm25.build(texts(kept)) if checked != "dense" else None
        words = bm25.words if bm25 is not None else 1
        super().__init__(
            kept,
            corpus_id=corpus_id(
                content_id(kept),
                encoder=used.id if used else "",
                mode=checked,
                words=words,
                rerank=named(rerank, used) if used else "",
            ),
            mode=checked,
            bm25=bm25,
            vectors=ExactVectors(encode_checked(used, texts(kept))) if used else None,
            encoder=used,
            name=name,
            rerank=rerank,
        )
