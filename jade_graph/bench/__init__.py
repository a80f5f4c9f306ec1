"""Benchmarks: each prints figures that the documentation quotes.

Invariant: what is compared runs in alternation in one process, and a figure stands beside what it was made with.
"""
