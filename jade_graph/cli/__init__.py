"""The `jade` command.

Invariant: starting it imports nothing heavy; a command's module, and what it needs, is imported when it is called.
Every command knows --json, --config, --set, --quiet and --verbose, and ends with a documented exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (docs/reference/cli.md)."""
    # Before torch is loaded: its threads spin while they wait, which on a machine that does anything else makes two
    # threads many times slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from jade_graph.cli.app import run

    return run(argv)


def entry() -> NoReturn:
    """The `jade` program. After an interrupt nothing is waited for: what other threads do is on disk, or done again."""
    from jade_graph import private

    os.umask(private.UMASK)  # what this process and its libraries write is the user's own: it holds prompts
    code = main()
    from jade_graph.cli.failures import INTERRUPTED

    if code == INTERRUPTED:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.terminate()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


__all__ = ["entry", "main"]
