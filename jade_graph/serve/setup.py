"""Puts a service together from settings.

Invariant: everything is opened before the first request is taken, so that what is missing is an error of the command
and not of a client; whatever is opened is closed by leaving `opened`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jade_graph.assembly import Progress, open_backbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.langchain.session import graph_over, open_session
from jade_graph.serve.graphs import Graphs, Version, offered
from jade_graph.serve.service import Service
from jade_graph.settings.config import Config
from jade_graph.settings.fields import Settings
from jade_graph.sync import run_sync
from jade_graph.telemetry import spans as telemetry
from jade_graph.types import Backbone, Preset

if TYPE_CHECKING:
    from jade_graph.registry import Registry

_FRESH_S = 2.0


@contextmanager
def opened(config: Config, *, record: bool = True, progress: Progress | None = None) -> Iterator[Service]:
    """A service over what the settings name. Raises what opening its parts raises."""
    with open_session(config, record=record, progress=progress) as session:
        s = config.settings

        def build(preset: Preset, backbone: Backbone) -> JadeGraph:
            if preset is session.graph.preset and backbone is session.backbone:
                return session.graph
            frozen = session.graph.frozen_backbone if s.frozen_backbone else None
            return graph_over(config, preset, backbone, retriever=session.retriever, frozen=frozen, store=session.store)

        graphs = Graphs(
            build,
            session.backbone,
            offered(session.graph.preset, s.serve.presets),
            versions=_versions(s),
            own=_alias(s.backbone),
            most=s.serve.versions,
            strict=s.serve.presets is not None,
        )
        try:
            yield Service(
                graphs, s, store=session.store, tracing=telemetry.tracing() if telemetry.configure() else None
            )
        finally:
            run_sync(graphs.aclose())


def reload_status(backbone: Backbone) -> Callable[[], Mapping[str, Any] | None]:
    """What /healthz says about a backbone that follows an alias; None for any other."""
    status: Callable[[], Any] | None = getattr(backbone, "status", None)

    def told() -> Mapping[str, Any] | None:
        if status is None:
            return None
        found: Mapping[str, Any] = status().as_dict()
        return found

    return told


class _Registered:
    """The versions of one registered model; the list is asked for at most every `_FRESH_S` seconds."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._registry: Registry | None = None
        self._found: Sequence[Version] = ()
        self._asked = float("-inf")

    def list(self) -> Sequence[Version]:
        if time.monotonic() - self._asked > _FRESH_S:
            if self._registry is None:
                from jade_graph.registry import Registry

                self._registry = Registry(
                    self._settings.registry.url, model=self._name, data_dir=self._settings.data_path
                )
            self._found, self._asked = self._registry.versions(), time.monotonic()
        return self._found

    def load(self, number: int) -> Backbone:
        return open_backbone(self._settings, f"models:/{self._name}/{number}")


def _versions(settings: Settings) -> _Registered | None:
    reference = _reference(settings.backbone)
    return None if reference is None else _Registered(settings, str(reference.name))


def _alias(spec: str) -> str:
    """The alias or number that the server's own backbone was named by."""
    reference = _reference(spec)
    return "" if reference is None else str(reference.alias or reference.number)


def _reference(spec: str) -> Any:
    """A registered version that `spec` names; None for any other backbone."""
    if not spec.startswith("models:"):
        return None
    from jade_graph.registry.versions import Reference

    return Reference.parse(spec)


__all__ = ["opened", "reload_status"]
