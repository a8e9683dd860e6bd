"""Freed memory, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_memory() -> None:
    """Free what only refers to itself, as graphs do whose nodes and tensors know each other, and let the C library
    return what was freed, where that is glibc.

    Once a few arrays of some MB were freed, glibc serves further ones from its heap, and keeps what is free in the
    middle of it: half of the memory of a run over a model of some 100 MB.  Cost: some hundredths of a second, and the pages that are
    needed again.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
