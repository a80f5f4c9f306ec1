"""`jade bench train` and `jade bench merge`: what learning and merging cost, and what merging gains.

Invariant: figures that are compared are measured in one run, in turn.
"""
