"""What serves: backbones that follow an alias of the registry, leased by run and swapped while they serve; and whole
graphs packaged as MLflow models.

Invariant: a run keeps the version that it leased to its end, and memory holds at most two versions; what has not
loaded and passed its smoke questions serves no run. Importing this package loads neither torch nor mlflow.
"""

from jade_graph.versions.backbone import VersionedBackbone, connect
from jade_graph.versions.pool import Pool, VersionLease
from jade_graph.versions.reloader import Alarm, Reloader, ReloadStatus
from jade_graph.versions.smoke import Smoke
from jade_graph.versions.source import VersionSource

__all__ = [
    "Alarm",
    "Pool",
    "ReloadStatus",
    "Reloader",
    "Smoke",
    "VersionLease",
    "VersionSource",
    "VersionedBackbone",
    "connect",
]
