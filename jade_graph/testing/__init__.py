"""Conformance suites for roles, backbones and retrievers, and tiny models to run them on."""
