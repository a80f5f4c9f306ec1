"""The room of real language: questions over Wikipedia, the model `smol` that is taught on them, what it came to.

Invariant: no question, passage or named answer that figures are reported on is learned from, where that can be told.
"""
