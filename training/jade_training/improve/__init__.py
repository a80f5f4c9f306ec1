"""The learning loop: roll out, export, train, evaluate, again; and what watches over it.

Invariant: killed at any moment, the same command goes on and ends with the same weights; the last good ones are kept.
"""
