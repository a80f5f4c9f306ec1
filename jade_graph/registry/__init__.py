"""Versions of the backbone: registered in MLflow, promoted through a gate, rolled back.

Invariant: importing this package loads neither mlflow nor torch; both are imported by the first call that needs them.
"""

from jade_graph.registry.registry import Registry
from jade_graph.registry.versions import ANY, CHALLENGER, CHAMPION, MODEL, ModelVersion, Promotion

__all__ = ["ANY", "CHALLENGER", "CHAMPION", "MODEL", "ModelVersion", "Promotion", "Registry"]
