"""The graph for `langgraph dev` and LangGraph servers: what langgraph.json names.

Invariant: one model and one corpus per process, opened from the settings (jade.toml, environment) when the first
request comes, off the event loop; an assistant's `preset` and `k` choose a variant over the same ones.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.workflow.checkpoint import secured

_lock = threading.Lock()
_graph: JadeGraph | None = None


def opened() -> JadeGraph:
    """The process's graph. Raises what `JadeGraph.from_config` does."""
    global _graph
    with _lock:
        if _graph is None:
            _graph = JadeGraph.from_config()
        return _graph


async def make_graph(config: RunnableConfig) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The compiled graph for one request; the server brings the checkpointer."""
    graph = await asyncio.to_thread(opened)
    chosen = {k: v for k, v in (config.get("configurable") or {}).items() if k in ("preset", "k") and v is not None}
    return (await asyncio.to_thread(graph.variant, **chosen)).graph


def make_checkpointer() -> BaseCheckpointSaver[Any]:
    """Where a development server keeps its threads: in memory, restoring our own plain values and nothing else."""
    found: BaseCheckpointSaver[Any] = secured(InMemorySaver())
    return found
