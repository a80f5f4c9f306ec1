"""Files that a visitor names.

Invariant: what is read is a regular file, inside the folders that the studio looks into (after links), and below a
size; and only what a person named on the page, never what stood in the address: any page of the web can write one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from jade_graph.errors import DataError

MOST_BYTES = 64 << 20


def require(path: Path, roots: Iterable[Path], *, most: int = MOST_BYTES) -> Path:
    """The file, its links followed. Raises `DataError` STUDIO_FILE."""
    folders = [root.expanduser().resolve() for root in roots]
    try:
        real = path.expanduser().resolve()
        if not any(real.is_relative_to(folder) for folder in folders):
            raise _refused(path, f"it is not inside {' or '.join(repr(str(f)) for f in folders)}")
        found = os.stat(real)
    except (OSError, RuntimeError, ValueError) as error:
        raise _refused(path, getattr(error, "strerror", None) or "there is no such file") from error
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "it is no regular file")
    if found.st_size > most:
        raise _refused(path, f"it has {found.st_size:,} bytes, and at most {most:,} are read")
    return real


def regular(path: Path, most: int = MOST_BYTES) -> bool:
    """Whether it is a regular file of at most so many bytes."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= most


def inside(folder: Path, roots: Iterable[Path]) -> bool:
    """Whether a folder is, links followed, one of the roots or below one."""
    try:
        real = folder.expanduser().resolve()
        return any(real.is_relative_to(root.expanduser().resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError):
        return False


def _refused(path: Path, why: str) -> DataError:
    return DataError(
        f"{str(path)!r} is not read: {why}.", code="STUDIO_FILE", hint="start jade studio in the folder of the file"
    )


__all__ = ["MOST_BYTES", "inside", "regular", "require"]
