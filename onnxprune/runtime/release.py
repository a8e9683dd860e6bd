"""Freed memory, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Let the C library return what was freed; does nothing where there is no glibc.

    Once a few arrays of some MB were freed, glibc serves further ones from its heap, and keeps what is free in the
    middle of it: half of the memory of a run over a model of some 100 MB.  Cost: milliseconds, and the pages that are
    needed again.
    """
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
