"""The number of BLAS threads: one for small systems and products, all for large ones.

OpenBLAS's threads wait for each other at every step.  If another process takes a core, a Cholesky factorization of 200
columns takes up to 500 ms on two threads, but 0.2 ms on one.  Measured on two busy cores: one thread refits a network
of 57 layers in 18 s instead of 255 s.  A system of 2,000 columns has enough work between the steps.
"""

from __future__ import annotations

import mmap
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
from scipy.linalg import blas
from threadpoolctl import ThreadpoolController

#: From this many columns on, several threads pay off: in a factorization, and in a product of many rows.
LARGE, LARGE_PRODUCT = 2048, 512
#: Bytes of a work buffer of OpenBLAS, with what its allocator adds, and columns of a product that all threads share.
BUFFER, SHARED = 34 << 20, 384


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    # Finding the libraries takes 7 ms; setting their threads takes 0.03 ms.
    return ThreadpoolController()


@lru_cache(maxsize=1)
def claim_buffers() -> None:
    """Let OpenBLAS allocate its work buffers now: once memory is short, it would retry for ever.

    This takes address space, but the process hardly ever writes to it.  Cost: milliseconds, once per process.

    Raises:
        MemoryError: there is no room for them.
    """
    threads = [int(pool["num_threads"]) for pool in _controller().info() if pool["user_api"] == "blas"]
    if not _fits(BUFFER * sum(threads)):
        if not _fits(BUFFER * len(threads)):
            raise MemoryError("no memory for the work buffers of linear algebra")
        _controller().limit(limits=1, user_api="blas")
    for kind in (np.float32, np.float64):
        square = np.ones((SHARED, SHARED), kind)
        square @ square
        (blas.ssyrk if kind is np.float32 else blas.dsyrk)(1.0, square)


def _fits(size: int) -> bool:
    try:
        mmap.mmap(-1, max(size, 1)).close()
    except OSError:
        return False
    return True


def blas_threads(columns: int) -> AbstractContextManager[object]:
    """Context in which BLAS uses the threads that suit a factorization of ``columns`` columns."""
    return _threads(columns >= LARGE)


def product_threads(columns: int) -> AbstractContextManager[object]:
    """Context in which BLAS uses the threads that suit a product of thousands of rows of ``columns`` columns."""
    return _threads(columns >= LARGE_PRODUCT)


def _threads(all_of_them: bool) -> AbstractContextManager[object]:
    if all_of_them:
        return nullcontext()
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited
