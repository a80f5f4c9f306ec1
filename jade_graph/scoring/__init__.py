"""What a run was worth, and which of its actions earned it: metrics, rewards, credit, intervals, evaluations.

Invariant: metrics, rewards, credit and statistics are pure functions of recorded runs; evaluations, bounds and oracles
ask an engine. What cannot be scored is None and left out, never counted as 0.
"""
