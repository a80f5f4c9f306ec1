"""Conformance suites for roles, backbones and retrievers, tiny models to run them on, and runs made by hand.

Invariant: a suite asks for what the engine and the learner rely on, and for nothing else; it downloads nothing.
"""
