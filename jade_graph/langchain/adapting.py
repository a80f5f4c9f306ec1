"""What an app hands in as the engine's parts: models, retrievers and documents of LangChain, names, texts.

Invariant: a document keeps its text and metadata. One without an id gets one from what is in it, so the same document
is the same passage in every search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever

from jade_graph.backbones import load_backbone
from jade_graph.errors import RetrievalError, UsageError
from jade_graph.langchain.backbone import ChatModelBackbone
from jade_graph.types import Backbone, Passage, Retriever


class LangChainRetriever:
    """`Retriever` over a LangChain retriever, e.g. `vectorstore.as_retriever()`: its ranking, at most k.

    Args:
        retriever: how many documents it brings is its own setting; of more than k the first k are taken.
        corpus_id: names what it searches, recorded with every run; None: its class.
    """

    told_by_langchain = True

    def __init__(self, retriever: BaseRetriever, *, corpus_id: str | None = None) -> None:
        self.retriever = retriever
        self._corpus_id = corpus_id or f"langchain:{type(retriever).__name__}"

    @property
    def corpus_id(self) -> str:
        return self._corpus_id

    async def search(self, query: str, k: int) -> list[Passage]:
        """Raises `RetrievalError` RETRIEVER_FAILED with whatever the retriever raised, `UsageError` BAD_K."""
        if k < 1:
            raise UsageError(f"k is {k}: a retrieval brings at least one passage.", code="BAD_K", hint="k=5")
        try:
            found = await self.retriever.ainvoke(query)
        except Exception as error:
            raise RetrievalError(
                f"the retriever {self._corpus_id!r} failed: {type(error).__name__}: {error}", code="RETRIEVER_FAILED"
            ) from error
        first: dict[str, Passage] = {}
        for passage in map(passage_of_document, found):
            first.setdefault(passage.id, passage)
        return list(first.values())[:k]


def identity(document: Document) -> str:
    """The document's id, or a digest of its text and metadata."""
    if document.id:
        return str(document.id)
    told = json.dumps([document.page_content, _sorted(document.metadata)], default=str)
    return hashlib.sha256(told.encode("utf-8", errors="replace")).hexdigest()[:16]


def _sorted(value: Any) -> Any:
    """The same, with every mapping in the order of its keys, of whatever kinds these are."""
    if isinstance(value, Mapping):
        told = ((key if isinstance(key, str) else f"{type(key).__name__} {key!r}", key) for key in value)
        return {name: _sorted(value[key]) for name, key in sorted(told, key=lambda pair: pair[0])}
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value


def passage_of_document(document: Document) -> Passage:
    """Title and score are taken from the metadata where they are there; the rest of it stays metadata."""
    own = dict(document.metadata)
    title = own.pop("title", "") if isinstance(own.get("title", ""), str) else ""
    score = own.pop("score", 0.0) if isinstance(own.get("score", 0.0), int | float) else 0.0
    return Passage(identity(document), document.page_content, title, float(score), own)


def as_backbone(given: Any) -> Backbone:
    """A backbone out of whatever names one: a `Backbone`, a text for `load_backbone`, or a LangChain chat model.

    Raises `UsageError` NOT_A_BACKBONE, and what loading raises.
    """
    if isinstance(given, str):
        return load_backbone(given)
    if isinstance(given, Backbone):
        return given
    if isinstance(given, BaseChatModel):
        inner = getattr(given, "backbone", None)  # of our own chat model: the model under it, with its ids
        return inner if isinstance(inner, Backbone) else ChatModelBackbone(given)
    raise UsageError(
        f"{given!r} is no backbone.",
        code="NOT_A_BACKBONE",
        known=["a Backbone", "a name for load_backbone", "a LangChain chat model"],
        hint='"tiny"',
    )


def as_retriever(given: Any) -> Retriever | None:
    """A retriever out of whatever an app has: a `Retriever`, a LangChain retriever, or passages, documents or texts.

    Raises `UsageError` NOT_A_RETRIEVER, and what indexing the passages raises.
    """
    if given is None or isinstance(given, Retriever):
        return given
    if isinstance(given, BaseRetriever):
        return LangChainRetriever(given)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        from jade_graph.retrieval.memory import MemoryRetriever  # loads numpy and bm25s

        return MemoryRetriever([_passage(item) for item in given])
    raise UsageError(
        f"{given!r} is nothing that can be searched.",
        code="NOT_A_RETRIEVER",
        known=["a Retriever", "a LangChain retriever", "a list of passages, documents or texts"],
        hint='open_corpus("NAME")',
    )


def _passage(item: Any) -> Passage:
    if isinstance(item, Passage):
        return item
    if isinstance(item, Document):
        return passage_of_document(item)
    if isinstance(item, str):
        return passage_of_document(Document(page_content=item))
    raise UsageError(f"{item!r} is no passage.", code="NOT_A_RETRIEVER", known=["Passage", "Document", "a text"])
