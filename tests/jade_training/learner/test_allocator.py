"""What an update used goes back to the system."""

import ctypes
import sys

import pytest

from jade_training.learner.allocator import handed_back


def resident() -> int:
    """MiB of this process."""
    with open("/proc/self/statm", encoding="ascii") as told:
        return int(told.read().split()[1]) * 4 // 1024


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's memory is meant"
)
def test_freed_memory_is_handed_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks: list[int] = []

    def used() -> int:
        blocks.extend(libc.malloc(64_000) for _ in range(3200))  # below the size that is mapped apart
        for block in blocks:
            ctypes.memset(block, 1, 64_000)
        for block in blocks[:-1]:  # the last keeps the heap from shrinking by itself
            libc.free(block)
        return resident()

    libc.malloc_trim(0)  # what earlier tests left would be taken before anything grows
    before = resident()
    with handed_back():
        held = used()
    assert held - before > 150
    assert resident() - before < 50
    libc.free(blocks[-1])
