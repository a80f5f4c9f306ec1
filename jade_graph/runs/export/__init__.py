"""Exports: runs and their transitions as a folder of Parquet that `datasets` and pandas read.

Invariant: an export holds the last attempt of each run that ended and nothing else, exactly as it was recorded; a
folder is there whole or not at all, and `read_export` gives back what was written or says why it cannot.
"""

from __future__ import annotations

from jade_graph.runs.export.read import Export, read_export
from jade_graph.runs.export.schema import EXPORT_SCHEMA
from jade_graph.runs.export.write import export_runs, export_store

__all__ = ["EXPORT_SCHEMA", "Export", "export_runs", "export_store", "read_export"]
