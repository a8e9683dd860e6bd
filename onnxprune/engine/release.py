"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect reference cycles (graphs, whose nodes and tensors refer to each other), then make glibc return free memory.

    Cost: some hundredths of a second, and that of :func:`return_memory`.
    """
    gc.collect()
    return_memory()


def return_memory() -> None:
    """Make glibc return free memory to the system.

    After a few arrays of some MB are freed, glibc allocates further ones from its heap and keeps the free space inside
    it.  This is half of the memory of a run over a model of about 100 MB.  Cost: mapping pages that are needed again.
    """
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
