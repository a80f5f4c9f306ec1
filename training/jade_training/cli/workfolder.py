"""The folder that a long command keeps its work in.

Invariant: nothing is deleted but what such a command wrote, and no folder of somebody's files becomes one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from jade_graph.errors import UsageError

IMPROVE = (
    "improve.json", "improve.json.new", "metrics.jsonl", "metrics.jsonl.new", "runs.sqlite", "runs.sqlite-wal",
    "runs.sqlite-shm", "iterations", "evaluations", "models", "mlflow-run",
)  # fmt: skip
COMPARE = (
    "compare.json", "compare.json.new", "arms", "results", "report.md", "report.json", "curves.png", "front.png"
)  # fmt: skip


def taken(folder: Path, names: Sequence[str], *, fresh: bool) -> None:
    """Refuse a folder that is something else's; with `fresh`, throw away what the command wrote there before.

    Args:
        names: of what the command writes. The first, its state, tells its folders from others.

    Raises:
        UsageError: OUT_TAKEN.
    """
    if not folder.exists():
        return
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {"": folder}
    others = sorted(set(found) - set(names))
    if others and names[0] not in found:
        what = "is no folder" if others == [""] else f"holds {others[0]!r}, which is none of this command's files"
        raise UsageError(f"{str(folder)!r} {what}.", code="OUT_TAKEN", hint="--out FOLDER, a new one")
    for name in set(found) & set(names) if fresh else ():
        if found[name].is_dir():
            shutil.rmtree(found[name])
        else:
            found[name].unlink()
