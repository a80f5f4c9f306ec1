"""Data sets of questions and passages: `load_dataset`.

Invariant: what a file does not say is left empty, and a record that cannot be read is named with its line.
"""

from jade_graph.data.dataset import Dataset, PassagePool
from jade_graph.data.loading import FORMATS, detect_format, load_dataset

__all__ = ["FORMATS", "Dataset", "PassagePool", "detect_format", "load_dataset"]
