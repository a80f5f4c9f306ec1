"""Which retrieved passages of recorded runs helped: usefulness levels by a cascade of voters (CLUE, arXiv 2506.08626).

Invariant: runs are read and never changed; what no quorum of readable votes speaks of has no label, never the lowest.
"""
