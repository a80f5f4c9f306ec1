"""Large memory for keys and values, in huge pages where the system has them.

Invariant: what comes back is zeros. The system gives memory in pages of 4 KB, and to be given one costs more than to
write it: with pages of 2 MB a batch's room is there at once.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

# From here on it pays (bytes).
_LARGE = 8 * 2**20


def zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros on the CPU, its memory touched only as it is used where it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(*shape, dtype=dtype)
    room = mmap.mmap(-1, size)
    with contextlib.suppress(OSError):  # a kernel without them: pages of the usual size
        room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=dtype).view(*shape)
