"""Learning from what is right: demonstrations, and the warm start on them.

Invariant: only action tokens are learned, and what is shown is legal by the roles' own parsers.
"""
