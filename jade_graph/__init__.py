"""JADE Graph: planner and executor roles of one shared language model, as one LangGraph state machine.

Invariant: importing this package loads nothing heavy. The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jade_graph.backbones import load_backbone
    from jade_graph.data import load_dataset
    from jade_graph.errors import JadeError
    from jade_graph.langchain.backbone import ChatModelBackbone
    from jade_graph.langchain.chat_model import JadeChatModel
    from jade_graph.langchain.embeddings import JadeEmbeddings
    from jade_graph.langchain.retriever import JadeRetriever
    from jade_graph.langchain.runnable import JadeGraph
    from jade_graph.retrieval.corpus import build_corpus, open_corpus
    from jade_graph.runs.store import RunStore
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.types import (
        Backbone,
        Limits,
        Passage,
        Plan,
        Preset,
        Question,
        Retriever,
        Role,
        Run,
        Sampling,
        Tool,
        Transition,
    )
    from jade_graph.workflow.parts import limits_of

__version__ = "0.1.0"

_TYPES = (
    *("Backbone", "Limits", "Passage", "Plan", "Preset", "Question", "Retriever"),
    *("Role", "Run", "Sampling", "Tool", "Transition"),
)
_HOME = {
    "JadeGraph": "langchain.runnable",
    "limits_of": "workflow.parts",
    "JadeError": "errors",
    "RunStore": "runs.store",
    "evaluate": "scoring.evaluation",
    "ChatModelBackbone": "langchain.backbone",
    "JadeChatModel": "langchain.chat_model",
    "JadeEmbeddings": "langchain.embeddings",
    "JadeRetriever": "langchain.retriever",
    "load_backbone": "backbones",
    "load_dataset": "data",
    "build_corpus": "retrieval.corpus",
    "open_corpus": "retrieval.corpus",
    **dict.fromkeys(_TYPES, "types"),
}

__all__ = [
    "Backbone",
    "ChatModelBackbone",
    "JadeChatModel",
    "JadeEmbeddings",
    "JadeError",
    "JadeGraph",
    "JadeRetriever",
    "Limits",
    "Passage",
    "Plan",
    "Preset",
    "Question",
    "Retriever",
    "Role",
    "Run",
    "RunStore",
    "Sampling",
    "Tool",
    "Transition",
    "build_corpus",
    "evaluate",
    "limits_of",
    "load_backbone",
    "load_dataset",
    "open_corpus",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jade_graph.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
