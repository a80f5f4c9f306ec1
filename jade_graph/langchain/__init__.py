"""The graph and its parts as LangChain knows them: runnable, tool, retriever, chat model, embeddings.

Invariant: importing this package loads nothing; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.langchain.adapting import LangChainRetriever
    from jade_graph.langchain.backbone import ChatModelBackbone
    from jade_graph.langchain.chat_model import JadeChatModel
    from jade_graph.langchain.embeddings import JadeEmbeddings
    from jade_graph.langchain.outputs import JadeInput, JadeOutput
    from jade_graph.langchain.retriever import JadeRetriever
    from jade_graph.langchain.tool import JadeTool

_HOME = {
    "ChatModelBackbone": "backbone",
    "JadeChatModel": "chat_model",
    "JadeEmbeddings": "embeddings",
    "JadeInput": "outputs",
    "JadeOutput": "outputs",
    "JadeRetriever": "retriever",
    "JadeTool": "tool",
    "LangChainRetriever": "adapting",
}

__all__ = [
    "ChatModelBackbone",
    "JadeChatModel",
    "JadeEmbeddings",
    "JadeInput",
    "JadeOutput",
    "JadeRetriever",
    "JadeTool",
    "LangChainRetriever",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jade_graph.langchain.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
