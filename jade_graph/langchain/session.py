"""A graph with what it runs on, opened from the settings for as long as a command or a page needs it.

Invariant: whatever a `Session` was given or has opened is closed by leaving it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from jade_graph.assembly import Progress, arguments_of, open_parts
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import Config
from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Preset, Retriever


@dataclass
class Session:
    """A graph with what it runs on; a context manager."""

    graph: JadeGraph
    backbone: Backbone
    retriever: Retriever | None
    store: RunStore | None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        run_sync(self.graph.aclose())
        if self.store is not None:
            self.store.close()


def open_session(
    config: Config,
    *,
    preset: str | Preset | None = None,
    backbone: Backbone | None = None,
    retriever: Retriever | None = None,
    record: bool = True,
    progress: Progress | None = None,
    follow: bool = True,
) -> Session:
    """The graph that the settings describe.

    Args:
        preset, backbone, retriever: take these instead of the settings'.
        record: write runs to the store.
        progress: called while a missing microworld corpus is built.
        follow: see `assembly.open_parts`.
    """
    parts = {"preset": preset, "backbone": backbone, "retriever": retriever}
    given = {name: part for name, part in parts.items() if part is not None}
    opened = open_parts(config, given, record=record, progress=progress, follow=follow)
    out = opened.arguments
    try:
        graph = JadeGraph(**out)
    except BaseException:
        opened.close()
        raise
    return Session(graph, out["backbone"], out["retriever"], out.get("recorder"))


def graph_over(
    config: Config,
    preset: Preset,
    backbone: Backbone,
    *,
    retriever: Retriever | None,
    frozen: Backbone | None = None,
    store: RunStore | None = None,
) -> JadeGraph:
    """A graph over parts that are open already, with the settings' limits, sampling and k."""
    parts = {**arguments_of(config, preset), "retriever": retriever, "frozen_backbone": frozen, "recorder": store}
    return JadeGraph(backbone, preset=preset, **parts)
