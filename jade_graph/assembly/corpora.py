"""Which corpus the settings name, opened; what is cheap and local is made on first use.

Invariant: questions are asked over what somebody named, or over their own data set's passages, never over a default
that holds no answer to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from jade_graph import plugins
from jade_graph.data import Dataset, load_dataset
from jade_graph.errors import RetrievalError, UsageError
from jade_graph.settings.config import Config
from jade_graph.settings.fields import MICROWORLD, Settings
from jade_graph.types import Retriever

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total) while a corpus is built."""

_WAIT = 3600.0  # seconds that another process may take to build the same corpus


def open_retriever(settings: Settings, progress: Progress | None = None) -> Retriever:
    """The corpus that the settings name; `SCHEME:REST` is a retriever by entry point (group "jade.retrievers").

    The microworld corpus is built on first use. Raises `RetrievalError` UNKNOWN_CORPUS.
    """
    scheme, _, rest = settings.corpus.partition(":")
    if rest or scheme in plugins.names("jade.retrievers"):
        found: Retriever = plugins.load("jade.retrievers", scheme)(rest)
        return _ranked_again(found, settings)
    try:
        return open_named(settings, settings.corpus)
    except RetrievalError as error:
        if error.error_code != "UNKNOWN_CORPUS" or settings.corpus != MICROWORLD:
            raise
    return open_dataset_corpus(settings, load_dataset(f"{MICROWORLD}:test?n=1"), progress, name=MICROWORLD)


def open_retriever_for(config: Config, dataset: Dataset, progress: Progress | None = None) -> Retriever:
    """What questions of a data set are asked over: the corpus that somebody named, else the data set's own passages.

    Raises `UsageError` NO_CORPUS_FOR_DATASET where there is neither: the default corpus holds microworld, and no answer
    to the questions of another data set.
    """
    if config.origin("corpus") == "default":
        if dataset.passages:
            return open_dataset_corpus(config.settings, dataset, progress)
        if not is_microworld(dataset.name):
            raise UsageError(
                f"the data set {dataset.name!r} brings no passages, and no corpus is named.",
                code="NO_CORPUS_FOR_DATASET",
                hint="name one with --corpus NAME; jade index PATH --corpus NAME makes it",
            )
    return open_retriever(config.settings, progress)


def open_named(settings: Settings, name: str) -> Retriever:
    from jade_graph.retrieval.corpus import open_corpus

    return open_corpus(name, settings.data_path, mode=settings.retrieval, rerank=settings.rerank)


def _ranked_again(found: Retriever, settings: Settings) -> Retriever:
    """A third party's retriever with what the settings ask for: it keeps no vectors that we could read."""
    if not settings.rerank:
        return found
    from jade_graph.retrieval.encoder import load_encoder
    from jade_graph.retrieval.reranked import RerankedRetriever

    return RerankedRetriever(found, load_encoder(settings.encoder), settings.rerank)


def open_dataset_corpus(
    settings: Settings, dataset: Dataset, progress: Progress | None = None, *, name: str | None = None
) -> Retriever:
    """The data set's own passages as a corpus: built on first use, unchanged passages are not embedded again.

    A whole corpus is opened as it is, be it for reading only; another process that builds it is waited for.
    """
    from jade_graph.retrieval.corpus import build_corpus, is_built

    corpus = name or corpus_name(dataset.name)
    if is_built(dataset.passages, corpus, settings.data_path, settings.encoder):
        try:
            return open_named(settings, corpus)
        except RetrievalError as error:
            if error.error_code != "CORPUS_BROKEN":  # else what is missing is made again
                raise
    build_corpus(dataset.passages, corpus, settings.data_path, settings.encoder, progress=progress, wait=_WAIT)
    return open_named(settings, corpus)


def is_microworld(dataset: str) -> bool:
    """Whether a data set's name is that of an invented world."""
    return corpus_name(dataset).partition("-")[0] == MICROWORLD


def corpus_name(dataset: str) -> str:
    """A data set's name as the name of a corpus."""
    return re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "dataset"
