"""How the bundled models are made from nothing: words, architecture, batches, steps, measurement, card.

Invariant: seeded and resumable; what ships is what was measured.
"""
