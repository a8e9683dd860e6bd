"""The number of BLAS threads: one for small systems and products, all for large ones.

OpenBLAS's threads wait for each other at every step.  If another process takes a core, a Cholesky factorization of 200
columns takes up to 500 ms on two threads, but 0.2 ms on one.  Measured on two busy cores: one thread refits a network
of 57 layers in 18 s instead of 255 s.  A system of 2,000 columns has enough work between the steps.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

from threadpoolctl import ThreadpoolController

#: From this many columns on, several threads pay off: in a factorization, and in a product of many rows.
LARGE, LARGE_PRODUCT = 2048, 512


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    # Finding the libraries takes 7 ms; setting their threads takes 0.03 ms.
    return ThreadpoolController()


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
