"""Benchmarks: each prints figures that the documentation quotes."""
