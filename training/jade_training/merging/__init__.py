"""Versions become one: linear combinations of weights, and the curves that a merge stands for.

Invariant: a merge depends on its parents and their coefficients, not on the order in which they are named; nothing is
combined whose names or shapes differ.
"""
