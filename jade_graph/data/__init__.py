"""Data sets of questions and passages: `load_dataset`."""

from jade_graph.data.dataset import Dataset, PassagePool
from jade_graph.data.loading import FORMATS, detect_format, load_dataset

__all__ = ["FORMATS", "Dataset", "PassagePool", "detect_format", "load_dataset"]
