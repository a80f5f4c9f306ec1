"""The room where settings become parts: models, corpora, the run store, limits.

Invariant: parts come out, never a graph. What a graph needs and is not there is made where that is cheap and local (the
microworld corpus, a data set's own corpus), else it is an error with the command to run.
"""

from jade_graph.assembly.corpora import (
    Progress,
    corpus_name,
    is_microworld,
    open_dataset_corpus,
    open_named,
    open_retriever,
    open_retriever_for,
)
from jade_graph.assembly.models import open_backbone, usual_concurrency
from jade_graph.assembly.opening import Opened, arguments_of, configured, limits_for, open_parts
from jade_graph.settings.fields import MICROWORLD

__all__ = [
    "MICROWORLD",
    "Opened",
    "Progress",
    "arguments_of",
    "configured",
    "corpus_name",
    "is_microworld",
    "limits_for",
    "open_backbone",
    "open_dataset_corpus",
    "open_named",
    "open_parts",
    "open_retriever",
    "open_retriever_for",
    "usual_concurrency",
]
