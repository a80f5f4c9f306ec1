"""How much of which data: shares that are searched by merging experts, and mixtures that training reads (MergeMix).

Invariant: experts come from one base; a share that is proposed was verified by a real merge, and how far the experts
are from their base is told with it.
"""
