"""One file that holds a project's data folder, taken while it is in use, and a folder made of it again.

Invariant: what a backup holds is consistent by itself: databases are copied by SQLite, corpora while nobody writes in
them, and every file's hash is in the manifest. A restored folder is whole or not there.
"""

from jade_graph.backup.restoring import Restored, restore
from jade_graph.backup.taking import Backup, back_up

__all__ = ["Backup", "Restored", "back_up", "restore"]
