"""What a run was worth, and which of its actions earned it: metrics, rewards, credit, intervals, evaluations.

Invariant: pure functions of recorded runs. What cannot be scored is None and left out, never counted as 0.
"""
