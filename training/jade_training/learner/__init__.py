"""The learner: recorded transitions in, an optimiser's step out.

Invariant: ids and log-probabilities are those of the record, and the loss of an update depends on its rows alone,
however they are cut up, ordered or padded.
"""
