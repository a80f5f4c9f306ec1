"""Corpora and how they are searched: `build_corpus`, `open_corpus` in `corpus`, `MemoryRetriever` in `memory`.

Invariant: a corpus is named by its content and its encoder, and is never searched with another encoder.
"""
