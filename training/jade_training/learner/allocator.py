"""Memory of an update is handed back when it is over.

Invariant: nothing that is computed changes.

Mini-batches of ragged actions differ in shape, each time, and the C library keeps what was freed between them: a
learning run of a million parameters held 2.3 GiB between updates, and holds 1.5 so. A third of a GiB more is oneDNN's,
which keeps a compiled product for each shape; ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 in the environment takes it off, for
about a fifth of an update's time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def handed_back() -> Iterator[None]:
    """What was freed within the context goes back to the system at its end, where the C library can (glibc)."""
    try:
        yield
    finally:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
        if trim is not None:
            trim(0)
