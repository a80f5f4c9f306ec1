"""Runs are kept, read back, exported and rated; those of graphs that are not ours, too.

Invariant: a run is read as it was recorded; what was superseded by a later attempt is never exported.
"""
