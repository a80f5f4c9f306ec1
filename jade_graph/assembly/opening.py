"""Settings become parts: everything that a graph is made of, opened, checked, and closed again.

Invariant: parts come out, never a graph, so whoever builds one (an `Engine`, a `JadeGraph`) stands above. What was
opened here is closed by `Opened.close`, and nothing that was handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph import plugins
from jade_graph.assembly.corpora import Progress, open_retriever
from jade_graph.assembly.models import open_backbone, placed
from jade_graph.errors import UsageError
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import Config, load_config
from jade_graph.settings.fields import MICROWORLD
from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Limits, Preset, Sampling
from jade_graph.workflow.parts import limits_of


@dataclass
class Opened:
    """`arguments`: of an `Engine` or a `JadeGraph`. `close`: whatever was opened for them; twice does nothing."""

    arguments: dict[str, Any]
    models: ExitStack = field(default_factory=ExitStack)
    stores: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close models, then stores, which so have what the models' last runs left; also where closing one fails."""
        try:
            self.models.close()
        finally:
            self.stores.close()


def configured(config: Config | str | Path | None, chosen: Mapping[str, Any]) -> Config:
    """The settings of a file, or those that are found, with those that are `chosen` on top.

    Raises `UsageError` CONFIG_LOADED, and what `load_config` raises.
    """
    if not isinstance(config, Config):
        return load_config(config=config, overrides=[f"{key}={_text(value)}" for key, value in chosen.items()])
    if chosen:
        raise UsageError(
            f"settings are loaded already, and {sorted(chosen)} are to be set too.",
            code="CONFIG_LOADED",
            hint="load_config(overrides=[..]), or leave config out",
        )
    return config


def open_parts(
    config: Config,
    given: Mapping[str, Any] | None = None,
    *,
    record: bool = True,
    progress: Progress | None = None,
    follow: bool = False,
) -> Opened:
    """Open what the settings name and is not given.

    Args:
        given: arguments of the graph that are there already; models that are named are opened too.
        record: write runs to the store of the settings.
        progress: called while a missing microworld corpus is built.
        follow: let a backbone `models:/NAME@ALIAS` follow its alias while the graph runs; False: what measures
            something takes the version that the alias points at now, to the end.

    Raises:
        UsageError, RetrievalError, BackboneError, StoreError: what is named is not there, with what is.
    """
    s, known = config.settings, dict(given or {})
    chosen = known.get("preset") or s.preset
    method: Preset = plugins.load("jade.presets", chosen) if isinstance(chosen, str) else chosen
    opened = Opened({**arguments_of(config, method), **known, "preset": method})
    out = opened.arguments

    def model(name: str | None = None) -> Backbone:
        found = open_backbone(s, name, follow=follow)
        opened.models.callback(lambda: run_sync(found.aclose()))
        return found

    if "retriever" not in known and s.corpus != MICROWORLD:
        out["retriever"] = open_retriever(s, progress)  # cheap, and what was asked for by name
    frozen, others = known.get("frozen_backbone", s.frozen_backbone), known.get("backbones") or {}
    for name in (known.get("backbone", s.backbone), frozen, *others.values()):
        if isinstance(name, str):
            placed(s, name)  # before a corpus is built for a model that is not there
    try:
        if "retriever" not in out:
            out["retriever"] = open_retriever(s, progress)
        if "backbone" not in known:
            out["backbone"] = model()
        if isinstance(frozen, str):
            out["frozen_backbone"] = model(frozen)
        if others:
            out["backbones"] = {role: model(m) if isinstance(m, str) else m for role, m in others.items()}
        if record and "recorder" not in known:
            out["recorder"] = store = RunStore(s.store_url)
            opened.stores.callback(store.close)
    except BaseException:
        opened.close()
        raise
    return opened


def arguments_of(config: Config, preset: Preset) -> dict[str, Any]:
    """Arguments of a graph that need no opening: the settings' limits, sampling and k."""
    s = config.settings
    return {
        "limits": limits_for(config, preset),
        "sampling": Sampling(temperature=s.sampling.temperature, top_p=s.sampling.top_p),
        "action_tokens": s.sampling.max_new_tokens,
        "k": s.k,
        "constrained": s.constrained,
        "durability": s.durability,
    }


def limits_for(config: Config, preset: Preset) -> Limits:
    """The defaults, with the preset's own limits on top, and on these what somebody set."""
    return limits_of(preset, **config.chosen("limits"))


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
