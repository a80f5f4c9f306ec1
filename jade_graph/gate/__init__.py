"""The gate between a challenger and the alias `champion`: policy, verdict, promotion.

Invariant: a champion is made here by evidence, or past the gate with a reason that is logged. Importing this package
loads neither mlflow nor torch.
"""

from jade_graph.gate.policy import Policy
from jade_graph.gate.promoting import Outcome, promote
from jade_graph.gate.trial import Trial, load_evidence, measure
from jade_graph.gate.verdict import Finding, Verdict, judge, needed

__all__ = ["Finding", "Outcome", "Policy", "Trial", "Verdict", "judge", "load_evidence", "measure", "needed", "promote"]
