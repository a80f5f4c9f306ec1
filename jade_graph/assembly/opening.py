"""Puts a graph together from settings: backbone, corpus, run store, preset.

Invariant: whatever is opened here is closed by leaving the `Session`. What a graph needs and is not there is made where
that is cheap and local (the microworld corpus, a data set's own corpus), else it is an error with the command to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jade_graph import plugins
from jade_graph.backbones import load_backbone
from jade_graph.errors import RetrievalError, UsageError
from jade_graph.langchain.opening import closing_models
from jade_graph.runs.store import RunStore
from jade_graph.settings.config import Config, load_config
from jade_graph.settings.fields import Settings
from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Limits, Preset, Retriever, Sampling
from jade_graph.workflow.engine import JadeGraph
from jade_graph.workflow.parts import limits_of

if TYPE_CHECKING:
    from jade_graph.data import Dataset

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total) while a corpus is built."""
MICROWORLD = "microworld"


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
        follow: keep a backbone `models:/NAME@ALIAS` at its alias while the graph runs; False: what measures something
            takes the version that the alias points at now, to the end.
    """
    s = config.settings
    chosen = preset or s.preset
    method: Preset = plugins.load("jade.presets", chosen) if isinstance(chosen, str) else chosen
    searched = retriever or open_retriever(s, progress)
    model = backbone or open_backbone(s, follow=follow)
    frozen = open_backbone(s, s.frozen_backbone, follow=follow) if s.frozen_backbone else None
    store = RunStore(s.store_url) if record else None
    graph = make_graph(config, method, model, retriever=searched, frozen=frozen, store=store)
    return Session(graph, model, searched, store)


def make_graph(
    config: Config,
    preset: Preset,
    backbone: Backbone,
    *,
    retriever: Retriever | None,
    frozen: Backbone | None = None,
    store: RunStore | None = None,
) -> JadeGraph:
    """A graph over parts that are open already, with the settings' limits, sampling and k."""
    s = config.settings
    return JadeGraph(
        backbone,
        preset=preset,
        retriever=retriever,
        frozen_backbone=frozen,
        limits=limits_for(config, preset),
        sampling=Sampling(temperature=s.sampling.temperature, top_p=s.sampling.top_p),
        action_tokens=s.sampling.max_new_tokens,
        k=s.k,
        constrained=s.constrained,
        recorder=store,
    )


def open_graph(
    config: Config | str | Path | None,
    *,
    backbone: Any = None,
    corpus: Any = None,
    preset: str | Preset | None = None,
    record: bool = True,
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> JadeGraph:
    """What `JadeGraph.from_config` describes. Settings that are given here beat those that are found."""
    named = {"backbone": backbone, "corpus": corpus, "preset": preset}
    chosen = {**settings, **{key: value for key, value in named.items() if isinstance(value, str)}}
    if not isinstance(config, Config):
        config = load_config(config=config, overrides=[f"{key}={_text(value)}" for key, value in chosen.items()])
    elif chosen:
        raise UsageError(
            f"settings are loaded already, and {sorted(chosen)} are to be set too.",
            code="CONFIG_LOADED",
            hint="load_config(overrides=[..]), or leave config out",
        )
    s = config.settings
    method: Preset = preset if isinstance(preset, Preset) else plugins.load("jade.presets", s.preset)
    given = dict(arguments)
    opened: list[Callable[[], Any]] = []
    try:
        if "retriever" not in given:
            given["retriever"] = open_retriever(s) if corpus is None or isinstance(corpus, str) else corpus
        mine: list[Backbone] = []
        opened.append(closing_models(mine))
        model = open_backbone(s) if backbone is None or isinstance(backbone, str) else backbone
        mine += [model] if model is not backbone else []
        if s.frozen_backbone and "frozen_backbone" not in given:
            given["frozen_backbone"] = open_backbone(s, s.frozen_backbone)
            mine.append(given["frozen_backbone"])
        if given.get("backbones"):
            loaded = {role: open_backbone(s, m) if isinstance(m, str) else m for role, m in given["backbones"].items()}
            mine += [m for role, m in loaded.items() if isinstance(given["backbones"][role], str)]
            given["backbones"] = loaded
        if record and "recorder" not in given:
            store = RunStore(s.store_url)
            given["recorder"] = store
            opened.append(store.close)
        defaults = {
            "limits": limits_for(config, method),
            "sampling": Sampling(temperature=s.sampling.temperature, top_p=s.sampling.top_p),
            "action_tokens": s.sampling.max_new_tokens,
            "k": s.k,
            "constrained": s.constrained,
        }
        graph = JadeGraph(model, preset=method, **{**defaults, **given})
    except BaseException:
        for shut in opened:
            shut()
        raise
    graph._opened = tuple(opened)
    return graph


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def limits_for(config: Config, preset: Preset) -> Limits:
    """The defaults, with the preset's own limits on top, and on these what somebody set."""
    return limits_of(preset, **config.chosen("limits"))


def open_backbone(settings: Settings, spec: str | None = None, *, follow: bool = False) -> Backbone:
    """The model that the settings name, with the options that its kind takes.

    Args:
        follow: let a registered one follow its alias once a graph is built on it.
    """
    name = spec or settings.backbone
    options: dict[str, Any] = {}
    if not _scheme(name) or _scheme(name) in ("hf", "models"):
        auto = {"device": settings.device, "dtype": settings.dtype}
        options = {key: None if value == "auto" else value for key, value in auto.items()}
        options["max_batch"] = settings.batch_size
        if _scheme(name) == "models":
            options |= _registered(settings, follow)
    elif _scheme(name) == "openai" and settings.api_key:
        options = {"api_key": settings.api_key}
    return load_backbone(name, **options)


def _registered(settings: Settings, follow: bool) -> dict[str, Any]:
    """What a registered backbone needs to know beside the model's own options."""
    from jade_graph.versions import Smoke

    about = settings.reload
    smoke = Smoke(legal=about.legal, f1=about.f1)
    if about.smoke is not None and follow:
        from jade_graph.data import load_dataset
        from jade_graph.retrieval.memory import MemoryRetriever

        asked = load_dataset(about.smoke)
        passages = MemoryRetriever(asked.passages) if asked.passages else None
        smoke = Smoke(tuple(asked.questions), passages, about.legal, about.f1)
    return {
        "registry": settings.registry.url,
        "data_dir": settings.data_path,
        "follow": follow,
        "poll_s": about.poll_s,
        "smoke": smoke,
    }


def open_retriever(settings: Settings, progress: Progress | None = None) -> Retriever:
    """The corpus that the settings name; `SCHEME:REST` is a retriever by entry point (group "jade.retrievers").

    The microworld corpus is built on first use. Raises `RetrievalError` UNKNOWN_CORPUS.
    """
    scheme, _, rest = settings.corpus.partition(":")
    if rest or scheme in plugins.names("jade.retrievers"):
        found: Retriever = plugins.load("jade.retrievers", scheme)(rest)
        return found
    try:
        return open_named(settings, settings.corpus)
    except RetrievalError as error:
        if error.error_code != "UNKNOWN_CORPUS" or settings.corpus != MICROWORLD:
            raise
    from jade_graph.data import load_dataset

    return open_dataset_corpus(settings, load_dataset(f"{MICROWORLD}:test?n=1"), progress, name=MICROWORLD)


def open_retriever_for(config: Config, dataset: Dataset, progress: Progress | None = None) -> Retriever:
    """What questions of a data set are asked over: the corpus that somebody named, else the data set's own passages.

    Raises `UsageError` NO_CORPUS_FOR_DATASET where there is neither: the default corpus holds microworld, and no answer
    to the questions of another data set.
    """
    if config.origin("corpus") == "default":
        if dataset.passages:
            return open_dataset_corpus(config.settings, dataset, progress)
        if corpus_name(dataset.name).partition("-")[0] != MICROWORLD:
            raise UsageError(
                f"the data set {dataset.name!r} brings no passages, and no corpus is named.",
                code="NO_CORPUS_FOR_DATASET",
                hint="name one with --corpus NAME; jade index PATH --corpus NAME makes it",
            )
    return open_retriever(config.settings, progress)


def open_named(settings: Settings, name: str) -> Retriever:
    from jade_graph.retrieval.corpus import open_corpus

    return open_corpus(name, settings.data_path, mode=settings.retrieval)


def open_dataset_corpus(
    settings: Settings, dataset: Dataset, progress: Progress | None = None, *, name: str | None = None
) -> Retriever:
    """The data set's own passages as a corpus: built on first use, unchanged passages are not embedded again."""
    from jade_graph.retrieval.corpus import build_corpus

    corpus = name or corpus_name(dataset.name)
    build_corpus(dataset.passages, corpus, settings.data_path, settings.encoder, progress=progress)
    return open_named(settings, corpus)


def corpus_name(dataset: str) -> str:
    """A data set's name as the name of a corpus."""
    return re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "dataset"


def _scheme(spec: str) -> str:
    match = re.match(r"([A-Za-z][\w+.-]+):", spec)
    return match[1] if match else ""
