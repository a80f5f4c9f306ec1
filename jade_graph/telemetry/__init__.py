"""Runs as OpenTelemetry spans, while they happen or sent afterwards.

Invariant: nothing is recorded or sent unless somebody asked for it.
"""
