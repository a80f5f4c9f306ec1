"""Files and folders that hold prompts: nobody but their owner reads them, whatever the process's umask is.

Invariant: only what is made here gets these rights; what was there keeps its own, and `jade doctor` says so.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

UMASK = 0o077
"""What the command line runs under, so that files of every library that it calls are private too."""


def folder(path: Path) -> Path:
    """The folder, made with mode 0700 where it is not there, as are its missing parents. Raises OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            each.mkdir(mode=0o700)
    path.mkdir(exist_ok=True)  # raises for a file of that name
    return path


def file(path: Path) -> Path:
    """The file, made empty with mode 0600 where it is not there. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def is_open(path: Path) -> bool:
    """Whether the group or others may read or enter what is there; False on systems without such rights."""
    return os.name == "posix" and path.exists() and bool(path.stat().st_mode & UMASK)
