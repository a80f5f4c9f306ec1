"""The code that MLflow runs when it loads a packaged graph (models-from-code): nothing is pickled.

Invariant: this file only names the model; what it does is in `jade_graph.versions.packaged`, of the version of
jade-graph that is installed where it is loaded.
"""

from mlflow.models import set_model

from jade_graph.versions.packaged import PackagedGraph

set_model(PackagedGraph())
