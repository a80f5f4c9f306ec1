"""Corpora and how they are searched: `build_corpus`, `open_corpus` in `corpus`, `MemoryRetriever` in `memory`."""
